"""The port of whoever does something outside: what it is asked to do, and how it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ofp_platform.vocabulary.loop.action import ActionIntent


@dataclass(frozen=True)
class Done:
    """It was done, once."""

    reason: str = ""


@dataclass(frozen=True)
class NotDone:
    """It was not done and will not be by what was sent so far: it may be tried again."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """It was not done, and trying again would change nothing."""

    reason: str


@dataclass(frozen=True)
class Unknown:
    """It may have been done, or may yet be: it must not be tried again before somebody knows."""

    reason: str


Report = Done | NotDone | Refused | Unknown


class Executor(Protocol):
    """Does intents outside. Called from several threads at once, never for one intent twice at a time."""

    @property
    def can_find(self) -> bool:
        """Whether it can be asked what became of an intent."""
        ...

    def execute(self, intent: ActionIntent) -> Report:
        """Do it. Within a bounded time; whatever is not certain is `Unknown`."""
        ...

    def find(self, key: str) -> Done | NotDone | Unknown:
        """Say whether the intent of this key was done. `NotDone` promises that nothing sent for it is still on its way."""
        ...
