"""The last look at the shards of a stream: what a wait saw, kept for the reads after it, and when each may be asked again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ofp_platform.log.kinesis_shards import Page
from ofp_platform.log.port import PartitionInfo

Place = tuple[str, str]
"""A shard, and the sequence number after which it is read."""


@dataclass(slots=True)
class Look:
    """Pages by the place that they were read from; each is given out once. Moments are of a monotonic clock.

    `lag`: records of each page of the last look; None: nobody looked, or a page was neither records nor the head. Not safe for
    threads: its log has the lock.
    """

    lag: dict[str, int] | None = None
    _pages: dict[Place, Page] = field(default_factory=dict)
    _heads_until: float = 0.0
    _due: dict[str, float] = field(default_factory=dict)
    _listing: list[PartitionInfo] | None = None
    _listing_until: float = 0.0
    _shards: list[PartitionInfo] | None = None

    def keep(self, shards: list[PartitionInfo], pages: Mapping[Place, Page], heads_until: float) -> None:
        """Keep what was seen; that a shard was at its head is true until then."""
        self._shards = shards
        self._pages = {place: page for place, page in pages.items() if page.records or page.ended or page.at_head}
        self._heads_until = heads_until

    def has(self, places: Iterable[Place]) -> bool:
        """Whether a page with something to tell is kept for one of those places."""
        pages = (self._pages.get(place) for place in places)
        return any(page is not None and (page.records or page.ended) for page in pages)

    def take_page(self, shard_id: str, after: str, limit: int, now: float) -> Page | None:
        """The page that was seen behind that place, at most `limit` records of it; the rest stays."""
        page = self._pages.pop((shard_id, after), None)
        if page is None or (not page.records and not page.ended and now >= self._heads_until):
            return None
        if len(page.records) <= limit:
            return page
        first, rest = page.records[:limit], page.records[limit:]
        self._pages[shard_id, first[-1]["SequenceNumber"]] = Page(rest, page.ended, page.at_head)
        return Page(first, ended=False, at_head=False)

    def take_shards(self) -> list[PartitionInfo] | None:
        """The shards that were listed when the pages were read."""
        shards, self._shards = self._shards, None
        return shards

    def forget_heads(self) -> None:
        """Something was appended: no shard is known to be at its head."""
        self._heads_until = 0.0

    def note(self, shard_id: str, page: Page, due: float) -> None:
        """A shard was asked, and may be asked again then."""
        self._due[shard_id] = due
        if page.ended:
            self._listing = self._shards = None
            del self._due[shard_id]

    def due(self, names: Sequence[str]) -> float:
        """When all of those shards may be asked."""
        return max((self._due.get(name, 0.0) for name in names), default=0.0)

    def note_listing(self, shards: list[PartitionInfo], until: float) -> None:
        """The shards were listed; the list may be used until then."""
        self._listing, self._listing_until = shards, until

    def listed(self, now: float) -> list[PartitionInfo] | None:
        """The list of shards, as long as it may be used."""
        return self._listing if now < self._listing_until else None
