"""Publishing: appends to a log that somebody else keeps, each record sent once, and what is known of each afterwards.

Such a log commits nothing together with the plane's own tables. Whoever publishes notes before what it is about to send, and
reads the log where it does not hear what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ofp_platform.log.admitted import AdmittedColumns
from ofp_platform.log.port import EventLog


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The log has refused the record, or it was never sent: for certain it will not be in the log."""

    why: str


PublishFate = tuple[str, int | str] | NotTaken | None
"""Of one record: its partition and offset; that it was not taken; None where nobody knows, and it may still appear."""


@dataclass(frozen=True)
class PublishReceipt:
    """The fate of each record, in their order; those that were placed are of `incarnation`."""

    fates: Sequence[PublishFate]
    incarnation: str | None = None


@runtime_checkable
class Publisher(Protocol):
    """A log that takes records without saying for certain what became of them."""

    @property
    def late_seconds(self) -> float:
        """How long after it was given up a request can still take effect, at most."""

    @property
    def kept_seconds(self) -> float:
        """How long the log keeps a record for certain; 0: it is not known here."""

    def publish(self, records: AdmittedColumns, admitted_at: Sequence[int] | None) -> PublishReceipt:
        """Send each record once; one that was refused for certain is sent again a few times. `admitted_at`: microseconds of
        each; None: the broker's own time. It does not raise when the log is away: a fate says so.
        """


class PublishingLog(EventLog, Publisher, Protocol):
    """Both, with the path of the key by which it spreads records over partitions."""

    partition_key: str
