"""Until when a driver applies that stops by itself: until nothing comes, and never because nobody looks any more."""

from __future__ import annotations

from typing import Any

import pytest

from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.ranges import shard_driver
from ofp_platform.online.ranges.shard_driver import until_idle


class Watched:
    """What `until_idle` asks of a plane and its projection, as a list of answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.log = self
        self.projection_id = 1
        self.basis = None
        self.version = 0

    def row(self, projection_id: int) -> Watched:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.version = answer
        return self

    def ordinal_lag(self, basis: object) -> dict[str, int]:
        return {"0000": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_driver, "_LOOK_SECONDS", 0.001)


def watch(plane: Watched, seconds: float = 0.005) -> None:
    with until_idle(plane, plane, seconds) as idle:  # type: ignore[arg-type]
        assert idle.wait(60)


def test_a_projection_that_stands_still_is_idle() -> None:
    watch(Watched(1, 2, 3))


def test_an_outage_is_waited_out() -> None:
    watch(Watched(1, LogUnavailable("away"), LogUnavailable("away"), 2))


def test_a_watch_that_fails_is_not_idleness() -> None:
    with pytest.raises(KeyError, match="a defect"):
        watch(Watched(1, KeyError("a defect")))
