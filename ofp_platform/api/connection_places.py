"""Places for connections: how many one worker takes, how many of them one peer may hold, and a few kept for health.

A connection that finds no ordinary place is let into the reserved lane: its head is read, and it is answered where it asks
for health or metrics, with 503 where it asks for anything else. The lane is small; when it is full, its newcomer takes
the place of the oldest connection of whoever holds most of it, so that a crowd of one peer displaces itself.
"""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

OTHER_FILES = 192
"""Files of a worker that are no connections: the libraries, the event loop, the pools of its stores."""
_LEAST_PLACES = 16
_SUBNET_BITS = 64

Connection = TypeVar("Connection")


class TooFewFiles(Exception):
    """The process may not hold enough files to serve; the text says how many it needs."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of the connections of one worker.

    `handshakes`: of connections that have no place yet, because their TLS handshake is not over, 0 without TLS;
    `handshake_seconds`: for one.
    `places`: the most at once; `places_of_a_peer`: of one address (IPv6: of one /64 network); `lane`: more, for health and
    metrics alone; `backlog`: what the kernel holds that is not accepted yet. `head_seconds`: for a head, and between requests;
    `unread_seconds`: for an answer that the client does not read; `unread_bytes`: of answers, after which nothing more is
    answered until they are read.
    """

    places: int = 8_192
    places_of_a_peer: int = 4_096
    lane: int = 32
    backlog: int = 1_024
    head_seconds: float = 5.0
    unread_seconds: float = 20.0
    unread_bytes: int = 65_536
    handshakes: int = 0
    handshake_seconds: float = 10.0

    @property
    def files(self) -> int:
        """Files that a worker with these limits may hold at most: a whole backlog may be accepted in one turn of its loop."""
        return self.places + self.lane + self.handshakes + self.backlog + OTHER_FILES

    def within(self, files: int) -> ConnectionLimits:
        """These limits, or the greatest with which a worker holds no more than so many files.

        Raises:
            TooFewFiles: too few for any.
        """
        if self.files <= files:
            return self
        rest = files - OTHER_FILES
        lane = min(self.lane, rest // 16)
        backlog = min(self.backlog, rest // 4)
        handshakes = min(self.handshakes, rest // 16)
        places = min(self.places, rest - lane - backlog - handshakes)
        if places < _LEAST_PLACES or lane < 1:
            least = OTHER_FILES + 2 * _LEAST_PLACES
            raise TooFewFiles(f"this process may open {files} files, and the service needs {least} at least: raise `ulimit -n`")
        of_a_peer = min(self.places_of_a_peer, places)
        return replace(self, places=places, places_of_a_peer=of_a_peer, lane=lane, backlog=backlog, handshakes=handshakes)


def fit_file_limit(limits: ConnectionLimits) -> tuple[ConnectionLimits, str | None]:
    """Raise this process's own limit of open files as far as needed and allowed; the limits that fit, and words if they are less.

    Raises:
        TooFewFiles: too few files to serve at all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most_files = limits.files if hard == resource.RLIM_INFINITY else min(limits.files, hard)
    if soft != resource.RLIM_INFINITY and soft < most_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, hard))
    fitting = limits.within(most_files)
    if fitting is limits:
        return limits, None
    return fitting, (
        f"this process may open {most_files} files (the hard limit of `ulimit -n`), fewer than the {limits.files} that"
        f" {limits.places} connections need: it takes {fitting.places}"
    )


def peer_of(address: str) -> str:
    """Whom an address counts for: itself, or its network of 64 bits for IPv6, of which one machine may have all addresses."""
    if ":" not in address:
        return address
    ip_address = ipaddress.IPv6Address(address.partition("%")[0])
    if ip_address.ipv4_mapped is not None:
        return str(ip_address.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip_address, _SUBNET_BITS), strict=False))


class Lane(Generic[Connection]):
    """So many places. Whoever enters a full lane takes the place of the oldest connection of the peer that holds most of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._peers: dict[Connection, str] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._peers)

    def enter(self, connection: Connection, peer: str) -> Connection | None:
        """Take a place; whom that displaced."""
        displaced_connection = self._displace() if len(self._peers) >= self._size else None
        self._peers[connection] = peer
        return displaced_connection

    def _displace(self) -> Connection:
        peer, _ = Counter(self._peers.values()).most_common(1)[0]
        oldest = next(connection for connection, holder in self._peers.items() if holder == peer)
        del self._peers[oldest]
        return oldest

    def leave(self, connection: Connection) -> None:
        """Give the place back; a displaced connection has none."""
        self._peers.pop(connection, None)


class Places(Generic[Connection]):
    """The places of one worker. Each connection that `enter`s `leave`s once."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._ordinary: dict[Connection, str] = {}
        self._of_peer: Counter[str] = Counter()
        self._lane: Lane[Connection] = Lane(limits.lane)

    @property
    def ordinary_count(self) -> int:
        """Ordinary places that are held now."""
        return len(self._ordinary)

    @property
    def reserved_count(self) -> int:
        """Places of the reserved lane that are held now."""
        return len(self._lane)

    def enter(self, connection: Connection, peer: str) -> tuple[bool, Connection | None]:
        """Whether it has an ordinary place; else it is in the reserved lane, and whom it displaced there."""
        if len(self._ordinary) < self.limits.places and self._of_peer[peer] < self.limits.places_of_a_peer:
            self._ordinary[connection] = peer
            self._of_peer[peer] += 1
            return True, None
        return False, self._lane.enter(connection, peer)

    def leave(self, connection: Connection) -> None:
        """Give the place back; a displaced connection has none."""
        peer = self._ordinary.pop(connection, None)
        if peer is None:
            self._lane.leave(connection)
            return
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]
