"""The follower of the context stream: awake soon after an append, through an outage, and not past what it cannot read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from ofp_platform.identity import continuous_graph
from ofp_platform.identity.continuous_graph import follow_context
from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.log.port import LogRefused, LogUnavailable
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.identity.test_graph_state import envelope, new_log, projector


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@contextmanager
def following(open_projector: Any, troubles: list[str]) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=follow_context, args=(open_projector, stop), kwargs={"on_trouble": troubles.append})
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


class Told(GraphProjector):
    """Says when it has applied something."""

    applied = threading.Event()

    def apply_available(self, max_records: int = 50_000) -> Any:
        receipt = super().apply_available(max_records)
        if receipt is not None:
            self.applied.set()
        return receipt


@pytest.mark.parametrize("outage", [psycopg.OperationalError, ObjectStoreUnavailable, LogUnavailable])
def test_what_is_appended_is_folded(pool: Pool, monkeypatch: pytest.MonkeyPatch, outage: type[Exception]) -> None:
    monkeypatch.setattr(continuous_graph, "RETRY_SECONDS", 0.01)
    log, failing, troubles = new_log(pool), [2], []
    told = Told(pool, log, projector(pool, log).pins, 0)

    def open_projector() -> GraphProjector:
        if failing[0]:
            failing[0] -= 1
            raise outage("the server is away")
        return told

    told.applied.clear()
    with following(open_projector, troubles):
        log.append([envelope("1", "b", "a")])
        assert told.applied.wait(30)
        told.applied.clear()
        log.append([envelope("2", "c", "a")])
        assert told.applied.wait(30)
    assert told.graph().links == 2
    assert troubles == [f"the context stream waits: {outage.__name__}"]  # once for an outage


def test_a_stream_that_does_not_lead_on_ends_it(pool: Pool) -> None:
    def refuse() -> GraphProjector:
        raise LogRefused("it is another stream")

    with pytest.raises(LogRefused):
        follow_context(refuse, threading.Event(), on_trouble=pytest.fail)


def test_it_stops_when_it_is_told(pool: Pool) -> None:
    log = new_log(pool)
    stop = threading.Event()
    stop.set()
    follow_context(lambda: projector(pool, log), stop, on_trouble=pytest.fail)
    assert projector(pool, log).graph().version == 0
