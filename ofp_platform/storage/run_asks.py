"""Asks for runs, appended by whoever may ask; a runner appends what came of each. Asking changes nothing else."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from psycopg import Connection

from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.scenario import RunAsk, RunAskAnswer

MOST_PENDING = 100
"""Asks of a run that wait for a runner."""
_ADD = """
    INSERT INTO ofp.run_ask (pins_digest, content, actor, asked_at)
    SELECT %(run)s, %(content)s, %(actor)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE (
        SELECT count(*) FROM ofp.run_ask AS a WHERE a.pins_digest = %(run)s
            AND NOT EXISTS (SELECT FROM ofp.run_ask_outcome AS o WHERE o.ask_id = a.ask_id)
    ) < %(most)s
    RETURNING ask_id"""
_PENDING = """
    SELECT a.ask_id FROM ofp.run_ask AS a WHERE a.pins_digest = %s
        AND NOT EXISTS (SELECT FROM ofp.run_ask_outcome AS o WHERE o.ask_id = a.ask_id) ORDER BY a.ask_id"""
_ONE = """
    SELECT a.content, a.actor, o.state, o.problems FROM ofp.run_ask AS a LEFT JOIN ofp.run_ask_outcome AS o USING (ask_id)
    WHERE a.pins_digest = %s AND a.ask_id = %s"""
_OUTCOME = "INSERT INTO ofp.run_ask_outcome (ask_id, state, problems) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"


class TooManyAsks(Exception):
    """So many asks of a run wait already that no runner seems to answer them."""


def add_ask(connection: Connection[Any], pins: ContextPins, ask: RunAsk, actor: str) -> int:
    """Append an ask for the run of these pins; its number.

    Raises:
        TooManyAsks: see there.
    """
    arguments = {"run": pins_digest(pins), "content": canonical_bytes(ask.wire()).decode(), "actor": actor, "most": MOST_PENDING}
    row = connection.execute(_ADD, arguments).fetchone()
    if row is None:
        raise TooManyAsks(f"{MOST_PENDING} asks for run {pins.run_id!r} wait for a runner: is one at work (`ofp run work`)?")
    return int(row[0])


def pending_asks(connection: Connection[Any], pins: ContextPins) -> list[int]:
    """The asks that no runner has answered yet, the oldest first."""
    return [ask_id for (ask_id,) in connection.execute(_PENDING, (pins_digest(pins),)).fetchall()]


def read_ask(connection: Connection[Any], pins: ContextPins, ask_id: int) -> RunAskAnswer | None:
    """An ask of a run and where it stands; None: there is none of that number."""
    row = connection.execute(_ONE, (pins_digest(pins), ask_id)).fetchone()
    if row is None:
        return None
    content, actor, state, problems = row
    return RunAskAnswer(
        context_pins=pins,
        ask_id=ask_id,
        ask=RunAsk.model_validate_json(content),
        actor=actor,
        state=state or "PENDING",
        problems=tuple(orjson.loads(problems)) if problems else (),
        run=read_run_status(connection, pins),
    )


def add_outcome(connection: Connection[Any], ask_id: int, state: Literal["REFUSED", "READY"], problems: tuple[str, ...]) -> None:
    """Append what came of an ask; the first runner's word stays."""
    connection.execute(_OUTCOME, (ask_id, state, orjson.dumps(problems).decode()))
