"""Rows of a `decision` training set equal the vectors that were served, value by value.

Events are projected in many commits, and each is decided on at the basis of its commit. A set is built from the records of
those decisions. Its Parquet files and the stored snapshots are read here as anybody would read them; nothing of the builder's
own gate takes part in the comparison.

Of payments; and of transfers, some of which are amended, between accounts of which some are linked while decisions are made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import orjson
import pyarrow.parquet as pq

from ofp_platform.cli.demo.decision_stops import find_stops
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.client.answer import ReceivedFeatures
from ofp_platform.decisions.decision_point import CARD_PAYMENTS, DecisionPoint
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.recorder import DecisionRecorder, record_of
from ofp_platform.decisions.rule import Condition, PointsRule
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.rings import RingSimulation, simulate_ring
from ofp_platform.storage.decision_records import decision_ids_in, read_decisions
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.simulated_log import PINS
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite

PAYMENTS = 100_000
ACCOUNTS = 3_200
"""Of the transfers: in four weeks they make some 107,000."""
_DAYS = 28
_BETWEEN_LINKS = 3 * 3_600_000_000
STOPS = 50
_DECIDED_FROM = 1_800_000_000_000_000
_STORED_AT_ONCE = 500
_SHOWN = 5
TRANSFERS = DecisionPoint(
    event_type="transfer",
    key_fields={"account": "account_id", "device": "observed_identifiers[device_print]"},
    groups=(("account_alone", "v1"), ("account_entity", "v1"), ("account_habits", "v1"), ("device_use", "v1")),
    context_fields=(),
    rule=PointsRule(
        rule_name="rings",
        rule_version="v1",
        conditions=(Condition(group_name="account_entity", group_version="v1", feature="transfers_24h", at_least=20, points=50),),
        review_from=30,
        decline_from=60,
    ),
)
GROUPS = [{"group_name": name, "group_version": version} for name, version in CARD_PAYMENTS.groups]


def decide(
    plane: Plane,
    objects: SnapshotStore,
    point: DecisionPoint = CARD_PAYMENTS,
    before_stop: Callable[[int], None] = lambda moment: None,
) -> int:
    """Project and decide on every event, stop by stop; return how many questions were refused (behind the horizon).

    `before_stop` is told the time of the last event of the stop, microseconds, before it is decided on.
    """
    row = plane.ensure_live()
    projector, reader = plane.projector(row), plane.reader(row)
    pins = plane.profile.context_pins
    events = EventReader(plane.log, pins, point.event_type, plane.profile.clock_skew_us)
    ends = plane.log.ends()
    records = sum(plane.log.ordinal_lag(row.basis).values())
    begin, stops = find_stops(events, ends, records, STOPS, plane.profile.allowed_lateness_us // 2)
    recorder, ticks, refused = DecisionRecorder(plane.pool), count(_DECIDED_FROM), 0
    project_available(projector, plane.profile.batch_records, lambda records: None, begin)
    for stop in stops:
        project_available(projector, plane.profile.batch_records, lambda records: None, stop.basis)
        before_stop(max((event.ts for event in stop.events), default=0))
        answers, decisions = [], {}
        for event in stop.events:
            request = point.request(event, pins)
            if request is None:
                continue
            try:
                answer = reader.answer(request)
            except ContractError:
                refused += 1
                continue
            features = ReceivedFeatures.model_validate_json(answer.body)
            record = record_of(features, event, point.event_type, point.rule, next(ticks))
            if decisions.setdefault(record.decision_id, record) is record:  # a copy of the event is no second decision
                answers.append(answer)
        for first in range(0, len(answers), _STORED_AT_ONCE):
            objects.log(answers[first : first + _STORED_AT_ONCE])
        recorder.append_first(list(decisions.values()))
    return refused


def served_values(record: dict[str, Any]) -> dict[str, Any]:
    """The windowed features of a stored snapshot by the name of their dataset column."""
    return {
        f"{group['group_name']}_{group['group_version']}__{name}": value
        for key in record["hashed"]["values"]
        for group in key["by_group"]
        for name, value in group["features"].items()
    }


def differences(
    rows: Iterator[dict[str, Any]], snapshots: SnapshotStore, hashes: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Each row's decision id, and what differs from the vector under the hash that the decision recorded."""
    for row in rows:
        served = served_values(orjson.loads(snapshots.load(hashes[row["decision_id"]])))
        columns = [name for name in row if "__" in name and not name.startswith("payload__")]
        yield (
            row["decision_id"],
            [f"{name}: row {row[name]}, served {served.get(name)}" for name in columns if not same(row[name], served[name])],
        )


def same(value: Any, served: Any) -> bool:
    """A value of a Parquet file beside one of the wire, where decimals are texts."""
    if isinstance(value, Decimal):
        return isinstance(served, str) and f"{value:f}" == served
    if isinstance(value, list) and isinstance(served, list):
        return len(value) == len(served) and all(map(same, value, served))
    if isinstance(value, dict) and isinstance(served, dict):
        return value.keys() == served.keys() and all(same(value[name], served[name]) for name in value)
    return type(value) is type(served) and value == served


def compare(
    run: Run, labelled: LabelledPlane, groups: list[dict[str, str]], scope: dict[str, Any], what: str, planted: str
) -> None:
    """Build the set of all decisions of a plane, and hold it against what was served; `planted`: a column of counts."""
    plane = labelled.plane
    snapshots, context = SnapshotStore(plane.pool, labelled.objects), labelled.build_context
    intent = labelled.intent(
        as_of_basis="decision", feature_groups=groups, purpose="analysis", label=None, scope=scope, **_of_pack(plane)
    )
    outcome = build(context, context.ledger.submit(intent).run_key)
    built = outcome.state is RunState.DONE
    run.fact(f"set of the decisions, {what}", str(outcome.refusal or outcome.state.value), aim="DONE", reached=built)
    if outcome.outcome is None or not built:
        return
    with plane.pool.connection() as connection:
        ids = decision_ids_in(connection, plane.profile.context_pins, ReplayBasis.up_to(plane.log.ends()))
        hashes = {name: one.feature_snapshot_hash for name, one in read_decisions(connection, ids).items()}
    manifest = load_manifest(labelled.objects, intent.dataset_name, outcome.outcome["dataset_identity"])
    parity = manifest.gates.parity
    assert parity is not None
    unequal = parity.anchors - parity.match
    run.claim(f"vectors rebuilt from the log, {what}", tried=parity.anchors, failed=unequal, aim="0", of="served vectors")
    folder = labelled.objects.folder
    assert folder is not None
    rows = [row for file in manifest.files for row in pq.read_table(folder / file.path).to_pylist()]
    differing = [(name, found) for name, found in differences(iter(rows), snapshots, hashes) if found]
    run.claim(f"rows equal to the vectors that were served, {what}", tried=len(rows), failed=len(differing), aim="0", of="rows")
    missing = set(hashes) - {row["decision_id"] for row in rows}
    run.claim(f"decisions that have a row, {what}", tried=len(hashes), failed=len(missing), aim="0", of="decisions")
    ((_, found),) = differences(iter([{**rows[-1], planted: rows[-1][planted] + 1}]), snapshots, hashes)
    run.fact(f"a planted difference of one count, {what}", "found" if found else "not found", aim="found", reached=bool(found))
    if "graph_version" in rows[0]:
        versions = {row["graph_version"] for row in rows}
        joined = sum(row["account_entity_v1__transfers_24h"] != row["account_alone_v1__transfers_24h"] for row in rows)
        run.fact("rows in which an entity is more than the account", f"{joined:,}", aim="> 0", reached=joined > 0)
        run.fact("versions of the graph that rows know", f"{len(versions):,}", aim="> 1", reached=len(versions) > 1)
        run.fact("amendments in the replay", f"{manifest.gates.completeness.amendments:,}")
    run.raw[f"differing, {what}"] = differing[:_SHOWN]


def _of_pack(plane: Plane) -> dict[str, Any]:
    pack = profile_pack(plane.profile)
    return {"feature_pack": {"pack_id": pack.pack_id, "revision": pack.revision}}


def torture(run: Run) -> None:
    """See the module."""
    _torture_payments(run)
    _torture_entities(run)


def _torture_payments(run: Run) -> None:
    payments = run.count(PAYMENTS, least=200)
    simulation = PaymentSimulation(pins=ContextPins.model_validate(PINS), seed=run.seed, payments=payments, days=20)
    with own_database(run.dsn) as dsn:
        folder = run.folder / "payments"
        folder.mkdir()
        labelled = LabelledPlane.prepare(
            dsn, folder, deliveries=simulate_payments(simulation).deliveries, decided=False, batch_records=50_000
        )
        try:
            refused = decide(labelled.plane, SnapshotStore(labelled.plane.pool, labelled.objects))
            scope = {"kind": "per_event", "event_types": ["card_payment"]}
            compare(run, labelled, GROUPS, scope, "payments", "account_activity_v1__count_5m")
            run.fact("questions behind the horizon, not decided", f"{refused:,}")
        finally:
            labelled.plane.close()


def _torture_entities(run: Run) -> None:
    accounts = run.count(ACCOUNTS, least=60)
    simulation = RingSimulation(
        ContextPins.model_validate(PINS),
        seed=run.seed,
        accounts=accounts,
        families=max(accounts // 40, 2),
        days=_DAYS,
        amended=max(accounts // 3, 5),
        linked_after_days=_DAYS // 2,
    )
    stream = simulate_ring(simulation)
    with own_database(run.dsn) as dsn:
        folder = run.folder / "entities"
        folder.mkdir()
        settings = {"pack": "mule_rings", "context_stream": "links", "batch_records": 50_000}
        labelled = LabelledPlane.prepare(
            dsn, folder, deliveries=stream.deliveries, amendments=stream.amendments, decided=False, **settings
        )
        plane = labelled.plane
        try:
            log, projector, left = plane.context_log(create=True), plane.graph_projector(), deque(stream.links)

            def link_known(moment: int) -> None:
                """Append the links that are admitted by then, families one after the other, and fold them."""
                while left and left[0].admitted_at + (len(stream.links) - len(left)) * _BETWEEN_LINKS <= moment:
                    link = left.popleft()
                    receipt = log.append([link.envelope], lambda _: moment)
                    assert not receipt.refusals
                while projector.apply_available(1_000) is not None:
                    pass
                projector.graph()

            link_known(0)
            refused = decide(plane, SnapshotStore(plane.pool, labelled.objects), TRANSFERS, link_known)
            scope = {"kind": "per_event", "event_types": ["transfer"]}
            groups = [{"group_name": name, "group_version": version} for name, version in TRANSFERS.groups]
            compare(run, labelled, groups, scope, "entities", "account_entity_v1__transfers_24h")
            run.fact("questions of transfers behind the horizon, not decided", f"{refused:,}")
        finally:
            plane.close()


SUITE = Suite("served_rows", "Rows of a training set beside the vectors that were served", torture)
