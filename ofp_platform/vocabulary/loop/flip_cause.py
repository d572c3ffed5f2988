"""Causes of a decision that would have been another one, and why a vector is not there to try them on."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Cause(StrEnum):
    """The change that flips a decision: of what is known (DATA, by kind), of what is computed of it, or of what decides."""

    DATA_LATE_EVENT = "DATA_LATE_EVENT"
    DATA_AMENDMENT = "DATA_AMENDMENT"
    DATA_LINK = "DATA_LINK"
    CAUSAL_READ = "CAUSAL_READ"
    FEATURE = "FEATURE"
    RULE = "RULE"
    MODEL = "MODEL"
    POSTURE = "POSTURE"


class NotRebuilt(NamedTuple):
    """Why the vector of a decision cannot be had otherwise: a code, and words."""

    reason: str
    detail: str
