"""Rows of a `decision` training set equal the vectors that were served, value by value.

Payments are projected in many commits, and each is decided on at the basis of its commit. A set is built from the records of
those decisions. Its Parquet files and the stored snapshots are read here as anybody would read them; nothing of the builder's
own gate takes part in the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import orjson
import pyarrow.parquet as pq

from ofp_platform.cli.demo.decision_stops import find_stops
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.client.answer import ReceivedFeatures
from ofp_platform.decisions.decision_point import CARD_PAYMENTS
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.recorder import DecisionRecorder, record_of
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
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
STOPS = 50
_DECIDED_FROM = 1_800_000_000_000_000
_STORED_AT_ONCE = 500
_SHOWN = 5
GROUPS = [{"group_name": name, "group_version": version} for name, version in CARD_PAYMENTS.groups]


def decide(plane: Plane, objects: SnapshotStore) -> int:
    """Project and decide on every payment, stop by stop; return how many questions were refused (behind the horizon)."""
    row = plane.ensure_live()
    projector, reader = plane.projector(row), plane.reader(row)
    pins = plane.profile.context_pins
    events = EventReader(plane.log, pins, CARD_PAYMENTS.event_type, plane.profile.clock_skew_us)
    ends = plane.log.ends()
    records = sum(plane.log.ordinal_lag(row.basis).values())
    begin, stops = find_stops(events, ends, records, STOPS, plane.profile.allowed_lateness_us // 2)
    recorder, ticks, refused = DecisionRecorder(plane.pool), count(_DECIDED_FROM), 0
    project_available(projector, plane.profile.batch_records, lambda records: None, begin)
    for stop in stops:
        project_available(projector, plane.profile.batch_records, lambda records: None, stop.basis)
        answers, decisions = [], {}
        for event in stop.events:
            request = CARD_PAYMENTS.request(event, pins)
            if request is None:
                continue
            try:
                answer = reader.answer(request)
            except ContractError:
                refused += 1
                continue
            features = ReceivedFeatures.model_validate_json(answer.body)
            record = record_of(features, event, CARD_PAYMENTS.event_type, CARD_PAYMENTS.rule, next(ticks))
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
    return type(value) is type(served) and value == served


def torture(run: Run) -> None:
    """See the module."""
    payments = run.count(PAYMENTS, least=200)
    simulation = PaymentSimulation(pins=ContextPins.model_validate(PINS), seed=run.seed, payments=payments, days=20)
    with own_database(run.dsn) as dsn:
        labelled = LabelledPlane.prepare(
            dsn, run.folder, deliveries=simulate_payments(simulation).deliveries, decided=False, batch_records=50_000
        )
        plane = labelled.plane
        try:
            snapshots = SnapshotStore(plane.pool, labelled.objects)
            refused = decide(plane, snapshots)
            context = labelled.build_context
            intent = labelled.intent(as_of_basis="decision", feature_groups=GROUPS, purpose="analysis", label=None)
            outcome = build(context, context.ledger.submit(intent).run_key)
            built = outcome.state is RunState.DONE
            run.fact("set of the decisions", str(outcome.refusal or outcome.state.value), aim="DONE", reached=built)
            if outcome.outcome is None or not built:
                return
            with plane.pool.connection() as connection:
                ids = decision_ids_in(connection, plane.profile.context_pins, ReplayBasis.up_to(plane.log.ends()))
                hashes = {name: one.feature_snapshot_hash for name, one in read_decisions(connection, ids).items()}
            manifest = load_manifest(labelled.objects, intent.dataset_name, outcome.outcome["dataset_identity"])
            folder = labelled.objects.folder
            assert folder is not None
            rows = [row for file in manifest.files for row in pq.read_table(folder / file.path).to_pylist()]
            differing = [(name, found) for name, found in differences(iter(rows), snapshots, hashes) if found]
            run.claim("rows equal to the vectors that were served", tried=len(rows), failed=len(differing), aim="0", of="rows")
            missing = set(hashes) - {row["decision_id"] for row in rows}
            run.claim("decisions that have a row", tried=len(hashes), failed=len(missing), aim="0", of="decisions")
            spoilt = {**rows[-1], "account_activity_v1__count_5m": rows[-1]["account_activity_v1__count_5m"] + 1}
            ((_, found),) = differences(iter([spoilt]), snapshots, hashes)
            run.fact("a planted difference of one count", "found" if found else "not found", aim="found", reached=bool(found))
            run.fact("questions behind the horizon, not decided", f"{refused:,}")
            run.raw["differing"] = differing[:_SHOWN]
        finally:
            plane.close()


SUITE = Suite("served_rows", "Rows of a training set beside the vectors that were served", torture)
