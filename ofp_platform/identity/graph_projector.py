"""Folds the context stream into the graph of a run: exactly once, whatever is delivered twice."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.identity.context_events import ContextRecords, read_context
from ofp_platform.identity.graph_state import GraphConflict, GraphRow, apply_records, open_graph
from ofp_platform.log.port import EventLog, readable_partitions
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import PartitionBasis, make_basis

MOST_RECORDS = 50_000


@dataclass(frozen=True)
class GraphReceipt:
    """One commit: records taken, links and unlinks that are new, the graph's version after it."""

    records: int
    links: int
    version: int


@dataclass(frozen=True)
class GraphProjector:
    """The pool and the log stay the caller's. Several at once are harmless: the version decides."""

    pool: Pool
    log: EventLog
    pins: ContextPins
    clock_skew_us: int

    def apply_available(self, max_records: int = MOST_RECORDS) -> GraphReceipt | None:
        """Apply what the log has behind the graph's basis, at most that many records of each partition; None: nothing.

        Raises:
            LogRefused: the log does not lead on from the basis. LogUnavailable: it does not answer.
        """
        while True:
            graph = self.graph()
            try:
                return self._apply(graph, max_records)
            except GraphConflict:
                continue  # another one has applied them: there is less left each time

    def drain(self) -> list[GraphReceipt]:
        """Apply until nothing is left; raises as `apply_available`."""
        receipts: list[GraphReceipt] = []
        while (receipt := self.apply_available()) is not None:
            receipts.append(receipt)
        return receipts

    def graph(self) -> GraphRow:
        """The graph as it stands."""
        with self.pool.connection() as connection:
            return open_graph(connection, self.log.stream_name, self.pins)

    def _apply(self, graph: GraphRow, max_records: int) -> GraphReceipt | None:
        parts: dict[str, PartitionBasis] = dict(graph.basis.by_partition())
        self.log.demand(graph.basis)
        read: dict[str, list[ContextRecords]] = {}
        records = 0
        for partition_id in readable_partitions(self.log.partitions(), graph.basis):
            start = parts.get(partition_id) or self.log.position_kind.start(partition_id)
            batch = self.log.read(partition_id, start, max_records)
            if batch.next == start:
                parts.setdefault(partition_id, start)
                continue
            parts[partition_id] = batch.next
            read[partition_id] = [read_context(batch, self.pins, self.clock_skew_us)]
            records += len(batch) + len(batch.unreadable)
        basis = make_basis(self.log.stream_name, parts)
        if basis == graph.basis:
            return None
        with self.pool.connection() as connection:
            links = apply_records(connection, graph, basis, read, records)
        return GraphReceipt(records, links, graph.version + 1)
