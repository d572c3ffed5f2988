"""Questions to the graph about an entity at a time: resolve, members, neighbours, profile, each from one version."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.identity.entities import MOST_MEMBERS, Entity, TooManyMembers, entity_of, links_in_force
from ofp_platform.identity.graph_state import GraphReading, query_links
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.errors import Reason, invalid, unavailable
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.identity_link import EntityProfile, LinkOfEntity
from ofp_platform.vocabulary.times import format_time


def too_many(error: TooManyMembers, pins: ContextPins) -> Exception:
    """The refusal of a question about an entity that is too large."""
    return invalid(Reason.TOO_MANY_MEMBERS, f"{error}: links of so many are a fault of whoever makes them", pins)


def usable(reading: GraphReading | None, stream_name: str, pins: ContextPins) -> GraphReading:
    """The reading.

    Raises:
        ContractError: UNAVAILABLE / IEG_DOWN, there is no graph; INVALID_REQUEST / TOO_MANY_MEMBERS, it is cut.
    """
    if reading is None:
        text = f"nobody has folded the context stream {stream_name} of this run (`ofp projector run`, `ofp identity catch-up`)"
        raise unavailable(Reason.IEG_DOWN, text, pins)
    if reading.is_cut:
        raise too_many(TooManyMembers("more ids hang together than are read for one question"), pins)
    return reading


@dataclass(frozen=True)
class GraphReader:
    """The graph of a run. The pool stays the caller's; safe for threads."""

    pool: Pool
    stream_name: str
    pins: ContextPins
    most_members: int = MOST_MEMBERS

    def resolve(self, key: FeatureKey, time: int) -> FeatureKey:
        """The canonical key of the entity that a key belongs to at a time (microseconds).

        Raises:
            ContractError: IEG_DOWN, TOO_MANY_MEMBERS.
        """
        return FeatureKey(key_type=key.key_type, key_id=self._entity(key, time)[1].canonical)

    def members(self, key: FeatureKey, time: int) -> tuple[FeatureKey, ...]:
        """All keys of the entity, sorted, the canonical one among them; raises as `resolve`."""
        return tuple(FeatureKey(key_type=key.key_type, key_id=name) for name in self._entity(key, time)[1].members)

    def neighbours(self, key: FeatureKey, time: int) -> tuple[LinkOfEntity, ...]:
        """The links in force of this key alone, whether they count or not; raises as `resolve`."""
        return self.profile(key, time).neighbours

    def profile(self, key: FeatureKey, time: int) -> EntityProfile:
        """All of it, from one version; raises as `resolve`."""
        reading, entity = self._entity(key, time)
        return EntityProfile(
            context_pins=self.pins,
            graph_version=reading.graph_version,
            as_of_time_utc=format_time(time),
            key=key,
            canonical_id=entity.canonical,
            members=entity.members,
            conflicts=entity.conflicts,
            neighbours=_neighbours(reading, key, time, entity),
        )

    def _entity(self, key: FeatureKey, time: int) -> tuple[GraphReading, Entity]:
        name = key.key_type.value, key.key_id
        with self.pool.connection() as connection:
            reading = usable(query_links(connection, self.stream_name, self.pins, [name]), self.stream_name, self.pins)
        try:
            return reading, entity_of(reading.links, *name, time, self.most_members)
        except TooManyMembers as error:
            raise too_many(error, self.pins) from None


def _neighbours(reading: GraphReading, key: FeatureKey, time: int, entity: Entity) -> tuple[LinkOfEntity, ...]:
    return tuple(
        LinkOfEntity(
            member=link.member,
            canonical=link.canonical,
            effective_time_utc=format_time(link.effective_ts),
            counts={link.member, link.canonical} <= set(entity.members),
        )
        for link in links_in_force(reading.links.about(key.key_type.value, [key.key_id]), time)
    )
