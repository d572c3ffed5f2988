"""Settings of a projector: the policy by which records count, and the sizes in which it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ofp_platform.online.projecting.chunk_merge import CHUNK_EVENTS
from ofp_platform.online.projecting.read_ahead import LEAST_RECORDS
from ofp_platform.online.state.chunk_spans import SPAN_CHUNKS
from ofp_platform.online.state.key_tails import TAIL_BYTES
from ofp_platform.online.state.known_identities import IdentityPolicy
from ofp_platform.online.state.pruning import LEAST_STEP


@dataclass(frozen=True)
class ProjectorSettings:
    """The policy is part of every value; the sizes change no answer.

    `clock_skew_us`, `allowed_lateness_us`: the policy of the run. `chunk_events`, `span_chunks`, `tail_bytes`: how much one row
    of state holds at most; `least_step`: chunks and tails that a step of pruning looks at, at least. `least_ahead`: records of
    a commit below which nothing is read beside it; `identities`: how known events are kept. A key shard other than shard 0 has
    no use for the last two.
    """

    clock_skew_us: int
    allowed_lateness_us: int
    chunk_events: int = CHUNK_EVENTS
    span_chunks: int = SPAN_CHUNKS
    tail_bytes: int = TAIL_BYTES
    least_step: int = LEAST_STEP
    least_ahead: int = LEAST_RECORDS
    identities: IdentityPolicy = field(default_factory=IdentityPolicy)
