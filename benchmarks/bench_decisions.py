"""The plane's own decisions: made one after the other behind the real service, and made again from their records.

`python -m benchmarks.bench_decisions --transactions 20000`: simulated transactions with the handbook's pack, a bundle of one rule
and a linear model over both groups, in NORMAL mode. The decider follows the log in one process and asks the service in another;
each step is a durable transaction. Then all decisions are made again, from log, stored vectors and bundle, in one process and
in several.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.bench_projection import project
from benchmarks.figures import Figures, Row
from benchmarks.keys import KEY
from benchmarks.servers import plane_app, server
from benchmarks.world import fill, fresh_database, profile
from ofp_platform.cli.online.decided_run import decided_run
from ofp_platform.cli.online.decided_run import replay as replay_run
from ofp_platform.decisions.decider import Decider, DeciderPolicy, DeciderTally
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.in_force import InForce
from ofp_platform.decisions.plane_questions import PlaneQuestions
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import ReplayTally
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.bundle_events import bundle_path
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleInForce, BundleModel, Comparison, Guardrail, Slot
from ofp_platform.vocabulary.loop.eval_report import Thresholds
from ofp_platform.vocabulary.loop.exact_model import ExactModel, FeatureInput, LinearForm, PayloadInput
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef

_AT = Position(stream_name="control", partition_id="0000", offset=0)
_GROUPS = tuple(FeatureGroupRef(group_name=name, group_version="v1") for name in ("account_activity", "merchant_risk"))
_MODEL = ExactModel(
    model_name="benchmark",
    inputs=(
        FeatureInput(group_name="account_activity", group_version="v1", feature="count_1d", scale=0, absent=0),
        FeatureInput(group_name="merchant_risk", group_version="v1", feature="risk_7d", scale=6, absent=0),
        PayloadInput(field="amount_minor", scale=0),
    ),
    score_scale=6,
    score_kind="log_odds",
    form=LinearForm(base=0, weights=(1_000_000, 3, 10), references=(1, 0, 0), least=(0, 0, 0), greatest=(100, 10**6, 10**9)),
)
_RULE = Guardrail(
    reason_code="BIG_AMOUNT",
    outcome=Outcome.DECLINE,
    all_of=(Comparison(field="amount_minor", operator="at_least", value=49_000),),
)


class _AsItIs:
    """Nothing is put in force or held meanwhile: that is measured in the drills of the posture."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force

    def read(self, _connection: object) -> InForce:
        """It."""
        return self._in_force

    hold = read


def bench_bundle(plane: Plane) -> Bundle:
    """The bundle, whose model is in the object store."""
    plane.objects.put_same(f"learning/{_MODEL.digest}.json", _MODEL.stored())
    return Bundle(
        bundle_name="benchmark",
        event_type="transaction",
        key_fields={KeyType.ACCOUNT: "customer_id", KeyType.MERCHANT: "terminal_id"},
        groups=_GROUPS,
        optional_groups=(),
        feature_definition_set=FeatureDefinitionSet(
            pack_id="handbook", revision=1, digest=plane.registry_of(plane.ensure_live()).digest
        ),
        guardrails=(_RULE,),
        model=BundleModel(
            path=f"learning/{_MODEL.digest}.json",
            digest=_MODEL.digest,
            thresholds=Thresholds(review_from=400_000, decline_from=4_000_000),
        ),
    )


def publish(plane: Plane) -> InForce:
    """The bundle and its model in the object store, NORMAL."""
    bundle = bench_bundle(plane)
    plane.objects.put_same(bundle_path(bundle.ref), bundle.stored())
    in_force = BundleInForce(bundle=bundle.ref, sequence=0, position=_AT)
    return InForce(PostureInForce(mode=Mode.NORMAL, sequence=0, position=_AT), ((Slot.ACTIVE, in_force),))


def decide_all(plane: Plane, port: int, in_force: InForce, connections: int) -> tuple[DeciderTally, float]:
    """Decide on what the log holds, and the seconds that it took."""
    reader = EventReader(plane.log, plane.profile.context_pins, "transaction", plane.profile.clock_skew_us)
    policy = DeciderPolicy(plane.profile.policy_rev, "review", 10.0, connections)
    load = ReadyBundles(plane.objects).load
    with PlaneQuestions(f"http://127.0.0.1:{port}", KEY) as questions:
        log = PostgresLog.create(plane.pool, "decided", 1, "event_id")
        in_force_now = _AsItIs(in_force)
        decider = Decider(plane.pool, log, reader, questions.ask, in_force_now, load, policy, lambda: time.time_ns() // 1_000)
        began = time.perf_counter()
        tally = questions.run(decider.decide_available())
        return tally, time.perf_counter() - began


def replay(declared: Profile, dsn: str, workers: int, rounds: int) -> tuple[ReplayTally, float]:
    """Make all decisions again, so many times, and the seconds that it took."""
    tally = ReplayTally()
    began = time.perf_counter()
    with Plane.open(declared, dsn, create_stream=False) as plane:
        for _ in replay_run(plane, decided_run(plane).parts() * rounds, tally, workers, worth_a_process=1):
            pass
    return tally, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="how often each decision is made again: a start is no small part")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "decisions")
        # every transaction can be asked about behind the last one
        declared = profile("decisions", folder).model_copy(update={"allowed_lateness": "100d"})
        try:
            with Plane.open(declared, dsn) as plane:
                fill(plane, arguments.transactions)
                project(plane, 50_000)
                in_force = publish(plane)
                with server(partial(plane_app, declared, dsn, 64 << 20)) as port:
                    tally, decide_seconds = decide_all(plane, port, in_force, arguments.connections)
                    decided = tally.outcomes.total()
                    if tally.lowering or decided != arguments.transactions:
                        raise SystemExit(f"the world of the benchmark is wrong: {tally}")
                with plane.pool.connection() as connection:
                    vectors = connection.execute(
                        "SELECT count(DISTINCT content::jsonb ->> 'feature_snapshot_hash') FROM ofp.decision_record"
                    ).fetchone()
                    stored = connection.execute("SELECT count(*) FROM ofp.snapshot_index").fetchone()
                if vectors != stored:  # the service stores the last ones when it stops
                    raise SystemExit(f"{stored} of {vectors} vectors are stored")
                with plane.pool.connection() as connection:
                    connection.execute("VACUUM ANALYZE")
            remade = decided * arguments.rounds
            replayed, alone_seconds = replay(declared, dsn, 1, arguments.rounds)
            if replayed.equal != remade:
                raise SystemExit(f"{replayed.equal} of {remade} are equal: {replayed.differences[:3]}")
            replayed_by_many, many_seconds = replay(declared, dsn, arguments.workers, arguments.rounds)
            if replayed_by_many != replayed:
                raise SystemExit(f"{arguments.workers} processes made {replayed_by_many}, one made {replayed}")
        finally:
            stop_embedded(folder / "postgres")
    alone_rate, many_rate = remade / alone_seconds, remade / many_seconds
    rows = (
        Row(
            f"decisions made, durable, {arguments.connections} questions at once",
            f"{decided / decide_seconds:,.0f}/s",
            ">= 500/s",
            decided / decide_seconds >= 500,
        ),
        Row(
            "decisions made again, the same to the last byte",
            f"{replayed.equal:,} of {remade:,}",
            "all",
            replayed.equal == remade,
        ),
        Row("made again in one process", f"{alone_rate:,.0f}/s"),
        Row(
            f"made again in {arguments.workers} processes, their start in it",
            f"{many_rate:,.0f}/s, {1_000_000 / many_rate:,.0f} s for 1,000,000; {many_rate / alone_rate:.2f} times one",
            "<= 60 s on two",
            many_rate >= 1_000_000 / 60,
        ),
    )
    figures = Figures(
        "decisions",
        "bench",
        "The plane's own decisions, made and made again",
        rows,
        time.perf_counter() - began,
        vars(arguments),
        {"outcomes": {outcome.value: count for outcome, count in tally.outcomes.items()}},
    )
    figures.write()
    print(figures.table())


if __name__ == "__main__":
    main()
