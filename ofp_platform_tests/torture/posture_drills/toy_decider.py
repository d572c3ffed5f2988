"""A decider that decides nothing: it commits rows under the mode in force, as fast as it can, in a process of its own.

`holds`: whether it holds the posture to the end of its transaction, as every decider must. Without that it reads the mode, and
commits a moment later: the control of the drills.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import psycopg

from ofp_platform.storage.postgres import answered_within, connect
from ofp_platform.storage.posture_challenges import answer_challenges
from ofp_platform.storage.posture_changes import hold_posture_shared, posture_in_force, tell_of_posture
from ofp_platform.vocabulary.identity import ContextPins

NAME = "toy"
SILENT_SECONDS = 0.3
"""Behind which the toy gives a connection up."""
_PAUSE_SECONDS = 0.02
_START_SECONDS = 60.0
_ROW = "INSERT INTO public.drill_row (sequence) VALUES (%s)"


def _decide(connection: psycopg.Connection[Any], pins: ContextPins, holds: bool) -> None:
    with connection.transaction():
        in_force = hold_posture_shared(connection, pins) if holds else posture_in_force(connection, pins)
        if not holds:
            time.sleep(_PAUSE_SECONDS)  # whoever decides takes a while
        connection.execute(_ROW, (-1 if in_force.sequence is None else in_force.sequence,))
        answered = answer_challenges(connection, pins, NAME, in_force)
    if answered:
        tell_of_posture(connection, pins)


def _work(dsn: str, pins: ContextPins, holds: bool, stop: Event, ready: Event) -> None:
    while not stop.is_set():
        try:
            with connect(dsn, autocommit=True) as connection, answered_within(connection, SILENT_SECONDS):
                while not stop.is_set():
                    _decide(connection, pins, holds)
                    ready.set()
        except (psycopg.Error, OSError):
            time.sleep(_PAUSE_SECONDS)  # the network, or the server ended a transaction that said nothing: anew


@contextmanager
def toy_decider(dsn: str, pins: ContextPins, *, holds: bool) -> Iterator[None]:
    """A decider at work until the end of the block; it has committed a row when the block begins.

    Raises:
        RuntimeError: it does not come so far.
    """
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Event()
    process = context.Process(target=_work, args=(dsn, pins, holds, stop, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(_START_SECONDS):
            raise RuntimeError("the toy decider commits nothing")
        yield
    finally:
        stop.set()
        process.join(_START_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
