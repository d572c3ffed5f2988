"""Reconciliation of ingress, to the unit: what was sent, what its receipts say, and what stands in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.ingress.gate import event_key
from ofp_platform.ingress.publish_rows import count_on_their_way, keys_on_their_way
from ofp_platform.ingress.receipt_block import decode_receipts
from ofp_platform.log.port import EventLog
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import Basis, PartitionBasis, order, place

_PAGE = 20_000
_SHOWN = 20
_BATCHES = """
    SELECT batch_id, records, admitted, duplicates, quarantined, receipts
    FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number) WHERE pins_digest = %s"""
_ADMITTED = """
    SELECT record_offset, record_token, event_key, payload_hash
    FROM ofp.admitted_event JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND is_context = %s AND partition_id = %s
    ORDER BY record_offset, length(record_token), record_token"""
_PARTITIONS = """
    SELECT partition_id, count(*) FROM ofp.admitted_event JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND is_context = %s GROUP BY partition_id"""


@dataclass
class IngressReconciliation:
    """The counts of a run. It balances where `differences` is empty: sent = admitted + duplicates + quarantined by the receipts,
    each admitted record stands in the log at its place with its payload, and the log has no other record of the run.

    `trimmed_count`: admitted records behind the log's floor, which cannot be looked at here; `later`: those admitted after the
    look at the log began; `in_flight`: those that are being published. Of those nobody knows of (PUBLISH_AMBIGUOUS) there is a
    difference. At most 20 differences are told; `differing` counts all.
    """

    batches: int = 0
    sent_count: int = 0
    admitted_count: int = 0
    duplicate_count: int = 0
    quarantined_count: int = 0
    in_log: int = 0
    trimmed_count: int = 0
    later: int = 0
    in_flight: int = 0
    differing: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, words: str) -> None:
        """Note a difference."""
        self.differing += 1
        if len(self.differences) < _SHOWN:
            self.differences.append(words)


def reconcile_ingress(
    connection: Connection[Any],
    pins: ContextPins,
    class_map: ClassMap,
    traffic: EventLog,
    context: EventLog | None,
    advance: Callable[[int], None] = lambda _: None,
) -> IngressReconciliation:
    """Count all receipts of a run, and hold what was admitted against its logs, record by record.

    Raises:
        LogError: a log does not answer, or cannot be read. ValueError: receipts are damaged.
    """
    result = IngressReconciliation()
    looks = [(is_context, log, log.ends()) for is_context, log in ((False, traffic), (True, context)) if log is not None]
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        _count_receipts(connection, pins, (traffic.stream_name, None if context is None else context.stream_name), result)
        on_their_way = keys_on_their_way(connection, pins_digest(pins))
        for is_context, log, ends in looks:
            _compare(connection, pins, class_map, log, ends, is_context, on_their_way, result, advance)
        result.in_flight, ambiguous = count_on_their_way(connection, pins_digest(pins))
    if ambiguous:
        result.differ(
            f"{ambiguous:,} records are PUBLISH_AMBIGUOUS: it is not known what of them is in the log (`ofp ingress settle`)"
        )
    on_record = result.in_log + result.trimmed_count + result.later
    if result.admitted_count != on_record:
        result.differ(f"the receipts say that {result.admitted_count:,} were admitted, and {on_record:,} are on record")
    return result


def _count_receipts(
    connection: Connection[Any], pins: ContextPins, streams: tuple[str, str | None], result: IngressReconciliation
) -> None:
    """Count by the receipts themselves, and hold the counters of each batch against them."""
    with connection.cursor(name="ingress_batches") as cursor:
        cursor.itersize = 100
        for batch_id, *counters, block in cursor.execute(_BATCHES, (pins_digest(pins),)):
            receipts = decode_receipts(block, pins, batch_id, streams)
            by_outcome = Counter(receipt.outcome for receipt in receipts)
            receipt_counts = [len(receipts), *(by_outcome[outcome] for outcome in AdmissionOutcome)]
            if receipt_counts != counters:
                result.differ(f"batch {batch_id}: its counters say {counters}, its receipts {receipt_counts}")
            result.batches += 1
            result.sent_count += receipt_counts[0]
            result.admitted_count += by_outcome[AdmissionOutcome.ADMIT]
            result.duplicate_count += by_outcome[AdmissionOutcome.DUPLICATE]
            result.quarantined_count += by_outcome[AdmissionOutcome.QUARANTINE]


def _compare(
    connection: Connection[Any],
    pins: ContextPins,
    class_map: ClassMap,
    log: EventLog,
    basis: Basis,
    is_context: bool,
    on_their_way: set[bytes],
    result: IngressReconciliation,
    advance: Callable[[int], None],
) -> None:
    run = pins_digest(pins)
    floors, ends = log.retention_floor().by_partition(), basis.by_partition()
    counts = dict(connection.execute(_PARTITIONS, (run, is_context)).fetchall())
    for name in sorted(set(counts) - set(ends)):
        if log.position_kind.offset_kind.start_is_first:
            result.differ(f"{log.stream_name}/{name}: records were admitted to it, and there is no such partition")
        else:  # a shard that ended leaves with the last record that it keeps
            result.trimmed_count += counts[name]
    for name, end in sorted(ends.items()):
        with connection.cursor(name="ingress_admitted") as cursor:
            cursor.itersize = _PAGE
            admitted_rows = (
                (order(token if offset is None else offset), bytes(key), bytes(payload_hash))
                for offset, token, key, payload_hash in cursor.execute(_ADMITTED, (run, is_context, name))
            )
            expected_row = next(admitted_rows, None)
            for offset, key, payload_hash in _records(log, name, pins, class_map, floors[name], end, advance):
                while expected_row is not None and expected_row[0] < offset:
                    _missing(result, log, floors[name], expected_row[0])
                    expected_row = next(admitted_rows, None)
                if expected_row is None or expected_row[0] != offset:
                    if key not in on_their_way:
                        result.differ(f"{log.stream_name}/{name}/{offset}: a record of the run that ingress has not admitted")
                    continue
                if expected_row[1:] != (key, payload_hash):
                    result.differ(f"{log.stream_name}/{name}/{offset}: another event, or payload, than was admitted there")
                result.in_log += 1
                expected_row = next(admitted_rows, None)
            while expected_row is not None:
                if expected_row[0] <= place(end):
                    _missing(result, log, floors[name], expected_row[0])
                else:
                    result.later += 1
                expected_row = next(admitted_rows, None)


def _missing(result: IngressReconciliation, log: EventLog, floor: PartitionBasis, offset: int) -> None:
    if offset <= place(floor):
        result.trimmed_count += 1
    else:
        name = f"{log.stream_name}/{floor.partition_id}/{offset}"
        result.differ(f"{name}: was admitted, and the log has no record of the run there")


def _records(
    log: EventLog,
    name: str,
    pins: ContextPins,
    class_map: ClassMap,
    floor: PartitionBasis,
    end: PartitionBasis,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, bytes, bytes]]:
    """Offset, identity and payload hash of the records of the run in a partition, up to its end as it was."""
    basis = floor
    while place(basis) < place(end):
        batch = log.read(name, basis, _PAGE)
        if batch.next == basis:
            return
        own_runs = {index for index, run_pins in enumerate(batch.pins) if run_pins == pins}
        for index, offset in enumerate(batch.offsets):
            if int(batch.pins_index[index]) in own_runs and end.contains(offset):
                mapped_type = class_map.events.get(batch.event_types[index])
                name_of_class = batch.event_types[index] if mapped_type is None else mapped_type.event_class
                yield order(offset), event_key(name_of_class, batch.event_ids[index]), batch.payload_hashes[index]
        advance(len(batch))
        basis = batch.next
