"""Everything that can be wrong with the audit log and the records in it, and the place of each fault."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """Closed list of faults."""

    NO_HEAD = "NO_HEAD"
    LEAF_MISSING = "LEAF_MISSING"
    LEAF_ALTERED = "LEAF_ALTERED"
    LEAF_BEHIND_HEAD = "LEAF_BEHIND_HEAD"
    NODE_MISSING = "NODE_MISSING"
    NODE_DIFFERS = "NODE_DIFFERS"
    NODE_UNKNOWN = "NODE_UNKNOWN"
    ROOT_DIFFERS = "ROOT_DIFFERS"
    HEAD_UNREADABLE = "HEAD_UNREADABLE"
    HEAD_ALTERED = "HEAD_ALTERED"
    HEAD_UNSIGNED = "HEAD_UNSIGNED"
    HEAD_NOT_IN_CHAIN = "HEAD_NOT_IN_CHAIN"
    HEAD_OF_ANOTHER_LOG = "HEAD_OF_ANOTHER_LOG"
    HEAD_OBJECT_MISSING = "HEAD_OBJECT_MISSING"
    HEAD_OBJECT_DIFFERS = "HEAD_OBJECT_DIFFERS"
    HEAD_ROW_MISSING = "HEAD_ROW_MISSING"
    CO_SIGNATURE_WRONG = "CO_SIGNATURE_WRONG"
    RECORD_MISSING = "RECORD_MISSING"
    RECORD_DIFFERS = "RECORD_DIFFERS"
    RECORD_WITHOUT_LEAF = "RECORD_WITHOUT_LEAF"


@dataclass(frozen=True)
class Fault:
    """One fault. `subject`: of a record KIND/ID, else head/SIZE, node/LEVEL/INDEX, leaf/INDEX, or the path of an object.

    `leaves`: the leaves that it concerns, `[first, end)`; None: no leaf, or not known which.
    """

    kind: FaultKind
    subject: str
    words: str
    leaves: tuple[int, int] | None = None

    @property
    def line(self) -> str:
        """The fault in one line."""
        where = ""
        if self.leaves is not None:
            first, end = self.leaves
            where = f", leaf {first}" if end == first + 1 else f", leaves {first} to {end - 1}"
        return f"{self.kind} {self.subject}{where}: {self.words}"
