"""Named places where a test may end the process, to prove that stopping anywhere changes nothing.

`OFP_CRASH_POINT=name` (or `name:n` for the n-th passage) makes the process end itself with SIGKILL there; a process that was
forked for it is told by `arm`. Nothing else happens here, and where nothing is armed the call is one comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Literal, get_args

CrashPoint = Literal[
    "projector.before_transaction",
    "projector.after_chunks",
    "projector.after_identities",
    "projector.before_commit",
    "projector.after_commit",
    "sequencer.epoch_open",
    "sequencer.others_committed",
    "shard.before_transaction",
    "shard.after_chunks",
    "shard.written",
    "shard.before_commit",
    "shard.after_commit",
    "continuous.holding",
    "continuous.reported",
    "graph.links_added",
    "graph.basis_moved",
    "graph.after_commit",
    "publish.in_flight",
    "publish.sent",
    "publish.recorded",
    "publish.after_commit",
    "ingress.appended",
    "ingress.recorded",
    "ingress.after_commit",
    "decision.placed",
    "decision.recorded",
    "decision.after_commit",
    "action.claimed",
    "action.done",
    "action.recording",
    "action.recorded",
    "archive.segment_read",
    "archive.segment_put",
    "archive.receipt_put",
    "build.planned",
    "build.replayed",
    "build.staged",
    "build.files_published",
    "build.manifest_published",
    "publication.file_put",
    "publication.before_manifest",
    "bundle.object_put",
    "bundle.recorded",
    "bundle.after_commit",
    "audit.rows_written",
    "audit.committed",
    "audit.head_put",
    "label.stored",
]
"""Every place that there is: the type checker refuses another name, the kill loops kill at each of them."""

CRASH_POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)

_passages: Counter[str] = Counter()
_wanted = ""
_passage = 1


def arm(name: str, passage: int = 1) -> None:
    """From now on, end this process at the `passage`-th time (from 1) that it comes by that place; "" is nowhere.

    Raises:
        ValueError: there is no such place, or no such passage.
    """
    global _wanted, _passage
    if name and name not in CRASH_POINTS:
        raise ValueError(f"OFP_CRASH_POINT: there is no crash point {name!r}; there are {', '.join(CRASH_POINTS)}")
    if passage < 1:
        raise ValueError(f"OFP_CRASH_POINT: passages of {name} are counted from 1, asked for was {passage}")
    _wanted, _passage = name, passage
    _passages.clear()


def crash_point(name: CrashPoint) -> None:
    """End the process here, as if it had been killed, when that was asked for."""
    if name != _wanted:
        return
    _passages[name] += 1
    if _passages[name] >= _passage:
        os.kill(os.getpid(), signal.SIGKILL)


def _arm_as_told(text: str) -> None:
    name, _, passage = text.partition(":")
    if passage and not passage.isdecimal():
        raise ValueError(f"OFP_CRASH_POINT: {text!r} is not a name, or a name and a number as in {CRASH_POINTS[0]}:3")
    arm(name, int(passage or 1))


_arm_as_told(os.environ.get("OFP_CRASH_POINT", ""))
