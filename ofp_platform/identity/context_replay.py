"""The context stream folded again, from its records: the links of any basis, without anything that was stored of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ofp_platform.identity.context_events import PlacedLink, read_context
from ofp_platform.identity.entities import Entity, LinkSet, TooManyMembers, entities_of
from ofp_platform.log.incarnations import ONE_HISTORY, LogHistory
from ofp_platform.log.port import EventLog
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.position import Basis, make_basis, place
from ofp_platform.vocabulary.serving import GraphVersion

_PAGE = 20_000
_KEPT = 256
_ANY = 2**31


class GraphUnknown(Exception):
    """A version of the graph that these records do not give; the text says why."""


@dataclass(frozen=True)
class ContextReplay:
    """All links of a run in a context stream, up to `ends`; those of a partition stand in its order."""

    stream_name: str
    ends: Basis
    links: tuple[tuple[str, PlacedLink], ...]
    history: LogHistory = ONE_HISTORY
    _sets: dict[str, LinkSet] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def read(cls, log: EventLog, pins: ContextPins, clock_skew_us: int) -> ContextReplay:
        """Read the whole stream, from its first record.

        Raises:
            LogRefused: it does not have its first records any more. LogUnavailable: it does not answer.
        """
        ends = log.ends()
        links: list[tuple[str, PlacedLink]] = []
        parts = {}
        for part in ends.partitions:
            at = log.position_kind.start(part.partition_id)
            while place(at) < place(part):
                batch = log.read(part.partition_id, at, _PAGE)
                if batch.next == at:
                    break
                links += [(part.partition_id, link) for link in read_context(batch, pins, clock_skew_us).links]
                at = batch.next
            parts[part.partition_id] = at
        return cls(log.stream_name, make_basis(log.stream_name, parts), tuple(links), log.history)

    def basis_of(self, version: GraphVersion) -> Basis:
        """The basis of a version of the graph, all of which is here.

        Raises:
            GraphUnknown: it is of another stream, of records that are not here, or has another name than these give it.
        """
        basis = Basis(stream_name=version.stream_name, partitions=version.basis)
        if graph_version_of(basis).graph_version != version.graph_version:
            raise GraphUnknown(f"{version.graph_version} is not the name of the graph version at its basis")
        if version.stream_name != self.stream_name:
            raise GraphUnknown(f"it is of stream {version.stream_name}, the links at hand are of {self.stream_name}")
        ends = self.ends.by_partition()
        for part in basis.partitions:
            if place(part) > place(ends.get(part.partition_id)):
                raise GraphUnknown(
                    f"it knows partition {part.partition_id} up to {part.offset}; the context stream does not reach it"
                )
            if not self.history.is_of(part):
                raise GraphUnknown(f"partition {part.partition_id} of it is of a history that the context stream does not have")
        return basis

    def at(self, version: GraphVersion) -> LinkSet:
        """The links that a version of the graph knows; raises as `basis_of`."""
        link_set = self._sets.get(version.graph_version)
        if link_set is not None:
            return link_set
        basis = self.basis_of(version)
        parts = basis.by_partition()
        link_set = LinkSet([link.link for name, link in self.links if name in parts and parts[name].contains(link.offset)])
        if len(self._sets) >= _KEPT:
            self._sets.clear()
        self._sets[version.graph_version] = link_set
        return link_set

    def entities(self, version: GraphVersion, keys: list[tuple[str, str]], time: int) -> Mapping[tuple[str, str], Entity]:
        """The entities of keys (key type, key id) by a version of the graph, at a time in microseconds; raises as `at`."""
        try:
            return entities_of(self.at(version), keys, time, _ANY)
        except TooManyMembers as error:
            raise GraphUnknown(str(error)) from None
