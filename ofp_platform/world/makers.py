"""Makers of worlds: the simulations, a handbook file, and rows of a file of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import JsonValue

from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.handbook_labels import handbook_labels
from ofp_platform.simulation.parameters import parameters_of
from ofp_platform.simulation.payments import PaymentSimulation, PaymentStream, simulate_payments
from ofp_platform.simulation.rings import EnvelopeDelivery, RingSimulation, simulate_ring
from ofp_platform.tables.import_rules import EventRules, ImportRules
from ofp_platform.tables.row_events import RowEvents, RowFault, RowReader, read_all
from ofp_platform.tables.row_labels import LabelReader
from ofp_platform.tables.table_file import TableFile
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import NOT_EMITTED
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import parse_time
from ofp_platform.vocabulary.world import OutputRole, SourceFile, WorldMaker
from ofp_platform.world.world_rows import EVENT_SCHEMA, TRUTH_SCHEMA, moment_column
from ofp_platform.world.world_store import OutputRows

_PART = 50_000
_ABSENT = int(np.iinfo(np.int64).min)
Outputs = Mapping[str, OutputRows]


@dataclass(frozen=True)
class MadeWorld:
    """A world before it is written. `faults`: rows of a file that are no events or labels; they are in no output."""

    maker: WorldMaker
    outputs: Outputs
    faults: tuple[tuple[str, RowFault], ...] = ()


def payments_world(simulation: PaymentSimulation, simulated_stream: PaymentStream | None = None) -> MadeWorld:
    """The payments of a simulation with all its disturbances: one output of traffic. `simulated_stream`: where it ran already."""
    stream = simulated_stream or simulate_payments(simulation)
    rows = OutputRows(OutputRole.BUSINESS_TRAFFIC, [_of_deliveries(part, simulation.pins) for part in stream.batches(_PART)])
    return MadeWorld(_maker("payments", simulation), {"payments": rows})


def rings_world(simulation: RingSimulation) -> MadeWorld:
    """Transfers with their amendments, and links between accounts, which are context."""
    stream = simulate_ring(simulation)
    transfers = [_of_deliveries(stream.deliveries, simulation.pins), _of_envelopes(stream.amendments)]
    outputs = {
        "links": OutputRows(OutputRole.BEHAVIOURAL_CONTEXT, [_of_envelopes(stream.links)]),
        "transfers": OutputRows(OutputRole.BUSINESS_TRAFFIC, transfers),
    }
    return MadeWorld(_maker("rings", simulation), outputs)


def handbook_world(path: Path, pins: ContextPins, transactions: int | None = None) -> MadeWorld:
    """The transactions of a handbook file with the reports that are due by the last one, and all its outcomes as truth.

    Raises:
        HandbookFileError: the file cannot be used.
    """
    replay = HandbookReplay(path, pins)
    parts = [_of_deliveries(part, pins) for part in replay.batches(_PART, transactions, until_last=True)]
    known_ids = {event_id for part in parts for event_id in part.column("event_id").to_pylist()}
    labels = [assertion for assertion in handbook_labels(path) if assertion.event_id in known_ids]
    outputs = {
        "labels": OutputRows(OutputRole.TRUTH, [_of_assertions(labels)]),
        "transactions": OutputRows(OutputRole.BUSINESS_TRAFFIC, parts),
    }
    parameters: dict[str, JsonValue] = {} if transactions is None else {"transactions": transactions}
    return MadeWorld(WorldMaker(maker="handbook", parameters=parameters, sources=(_source(path),)), outputs)


def table_world(events_file: Path, labels_file: Path | None, rules: ImportRules, label_class: str | None) -> MadeWorld:
    """Rows of a file of one's own as traffic, and those of another as truth, by the rules of import.yaml.

    `label_class`: the class of the events that the labels are about. An event arrives a declared while after its time.

    Raises:
        TableFault: a file cannot be read as rows, or lacks a column.
    """
    events = read_all(RowReader(rules.events), TableFile(events_file, rules.events.absent).parts())
    outputs = {"events": OutputRows(OutputRole.BUSINESS_TRAFFIC, [_of_rows(events, rules.events)])}
    faults = [(events_file.name, fault) for fault in sorted(events.faults)]
    sources = [_source(events_file)]
    if labels_file is not None and rules.labels is not None and label_class is not None:
        reader = LabelReader(rules.labels, label_class)
        assertions: list[LabelAssertion] = []
        for part in TableFile(labels_file, rules.labels.absent).parts():
            good, bad = reader.read(part)
            assertions += good
            faults += [(labels_file.name, fault) for fault in bad]
        outputs["labels"] = OutputRows(OutputRole.TRUTH, [_of_assertions(assertions)])
        sources.append(_source(labels_file))
    parameters: dict[str, JsonValue] = {"rules": rules.model_dump(mode="json", exclude_none=True), "rows_left_out": len(faults)}
    maker = WorldMaker(maker="table", parameters=parameters, sources=tuple(sources))
    return MadeWorld(maker, outputs, tuple(faults))


def _of_deliveries(deliveries: Deliveries, own_pins: ContextPins) -> pa.Table:
    other_runs = [None if pins == own_pins else canonical_bytes(pins.wire()).decode() for pins in deliveries.pins]
    return _table(
        ts=deliveries.ts,
        event_ids=deliveries.event_ids,
        event_types=deliveries.event_types,
        schema_versions=[deliveries.schema_version] * len(deliveries),
        emitted_at=moment_column(deliveries.emitted_at, NOT_EMITTED),
        arrived_at=moment_column(deliveries.admitted_at),
        other_runs=[other_runs[index] for index in deliveries.pins_index.tolist()],
        amends=[None] * len(deliveries),
        payloads=deliveries.payloads,
    )


def _of_envelopes(deliveries: Sequence[EnvelopeDelivery]) -> pa.Table:
    envelopes = [delivery.envelope for delivery in deliveries]
    emitted_texts = [envelope.get("emitted_at_utc") for envelope in envelopes]
    emitted_at = np.array([_ABSENT if text is None else parse_time(text) for text in emitted_texts], np.int64)
    amended_events = [envelope.get("amends") for envelope in envelopes]
    return _table(
        ts=np.array([parse_time(envelope["ts_utc"]) for envelope in envelopes], np.int64),
        event_ids=[envelope["event_id"] for envelope in envelopes],
        event_types=[envelope["event_type"] for envelope in envelopes],
        schema_versions=[envelope["schema_version"] for envelope in envelopes],
        emitted_at=moment_column(emitted_at, _ABSENT),
        arrived_at=moment_column(np.array([delivery.admitted_at for delivery in deliveries], np.int64)),
        other_runs=[None] * len(envelopes),
        amends=[None if value is None else canonical_bytes(value).decode() for value in amended_events],
        payloads=[ijson_bytes(envelope["payload"]) for envelope in envelopes],
    )


def _of_rows(events: RowEvents, rules: EventRules) -> pa.Table:
    ts, count = np.array(events.ts, np.int64), len(events)
    return _table(
        ts=ts,
        event_ids=events.event_ids,
        event_types=[rules.event_type] * count,
        schema_versions=[rules.schema_version] * count,
        emitted_at=moment_column(np.full(count, _ABSENT, np.int64), _ABSENT),
        arrived_at=moment_column(ts + rules.admitted_after_us),
        other_runs=[None] * count,
        amends=[None] * count,
        payloads=events.payloads,
    )


def _of_assertions(assertions: Iterable[LabelAssertion]) -> pa.Table:
    rows = list(assertions)
    observed_at = np.array([parse_time(row.observed_time_utc) for row in rows], np.int64)
    contents = [canonical_bytes(row.wire()).decode() for row in rows]
    return pa.Table.from_arrays([moment_column(observed_at), pa.array(contents, pa.string())], schema=TRUTH_SCHEMA)


def _table(
    *,
    ts: npt.NDArray[np.int64],
    event_ids: Sequence[str],
    event_types: Sequence[str],
    schema_versions: Sequence[str],
    emitted_at: pa.Array,
    arrived_at: pa.Array,
    other_runs: Sequence[str | None],
    amends: Sequence[str | None],
    payloads: Sequence[bytes],
) -> pa.Table:
    columns = (event_ids, event_types, schema_versions), (other_runs, amends)
    first, last = ([pa.array(list(values), pa.string()) for values in group] for group in columns)
    payload_column = pa.array(list(payloads), pa.binary()).cast(pa.string())
    return pa.Table.from_arrays([moment_column(ts), *first, emitted_at, arrived_at, *last, payload_column], schema=EVENT_SCHEMA)


def _maker(maker: Literal["payments", "rings"], simulation: PaymentSimulation | RingSimulation) -> WorldMaker:
    return WorldMaker(maker=maker, parameters={**parameters_of(simulation), "pins": {**simulation.pins.wire()}})


def _source(path: Path) -> SourceFile:
    with path.open("rb") as file:
        return SourceFile(name=path.name, digest=hashlib.file_digest(file, "sha256").hexdigest())
