"""Challenges: a nonce that each live decider answers with the mode that it decides under. Appended, never changed."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce

SEAT_SECONDS = 10
"""A decider that was not seen for so long is not live."""
CHALLENGE_SECONDS = 600
"""How long a challenge is answered."""
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ADD = f"INSERT INTO ofp.posture_challenge (nonce, pins_digest, asked_at, actor) VALUES (%s, %s, {_CLOCK}, %s)"
_SIT = f"""
    INSERT INTO ofp.decider_seat (pins_digest, decider_name, seen_at) VALUES (%s, %s, {_CLOCK})
    ON CONFLICT (pins_digest, decider_name) DO UPDATE SET seen_at = excluded.seen_at"""
_LIVE = f"""
    SELECT decider_name FROM ofp.decider_seat
    WHERE pins_digest = %s AND seen_at > {_CLOCK} - {SEAT_SECONDS} * 1000000 ORDER BY decider_name"""
_ANSWER = f"""
    INSERT INTO ofp.posture_answer (nonce, answered_by, mode, sequence, answered_at)
    SELECT nonce, %(name)s, %(mode)s, %(sequence)s, {_CLOCK} FROM ofp.posture_challenge AS asked
    WHERE pins_digest = %(run)s AND asked_at > {_CLOCK} - {CHALLENGE_SECONDS} * 1000000
        AND NOT EXISTS (SELECT FROM ofp.posture_answer AS a WHERE a.nonce = asked.nonce AND a.answered_by = %(name)s)
    ON CONFLICT DO NOTHING"""
_ANSWERS = "SELECT answered_by, mode, sequence, answered_at FROM ofp.posture_answer WHERE nonce = %s ORDER BY answered_by"


class ChallengeAnswer(NamedTuple):
    """The answer of one decider; `sequence`: of the change that it decides under, None where nothing was said; microseconds."""

    answered_by: str
    mode: Mode
    sequence: int | None
    answered_at: int


def add_challenge(connection: Connection[Any], pins: ContextPins, nonce: str, actor: str) -> None:
    """Append a challenge of the deciders of a run. Call `tell_of_posture` when that has committed."""
    connection.execute(_ADD, (nonce, pins_digest(pins), actor))


def live_deciders(connection: Connection[Any], pins: ContextPins) -> list[str]:
    """The deciders of a run that were seen within `SEAT_SECONDS`, by the clock of the database, sorted."""
    return [name for (name,) in connection.execute(_LIVE, (pins_digest(pins),)).fetchall()]


def answer_challenges(connection: Connection[Any], pins: ContextPins, decider_name: str, in_force: PostureInForce) -> int:
    """Say that a decider is alive, and answer each challenge that it has not answered: the number of those. `in_force`: what
    `hold_posture_shared` gave it in this very transaction, so that the answer is under the same law as its decisions.

    A decider calls it in its loop, at least every second, also when there is nothing to decide; and `tell_of_posture` behind the
    commit where it answered one.
    """
    run = pins_digest(pins)
    connection.execute(_SIT, (run, decider_name))
    arguments = {"run": run, "name": decider_name, "mode": in_force.mode, "sequence": in_force.sequence}
    return connection.execute(_ANSWER, arguments).rowcount


def challenge_answers(connection: Connection[Any], nonce: str) -> list[ChallengeAnswer]:
    """The answers to a challenge so far, sorted by who gave them."""
    return [
        ChallengeAnswer(name, Mode(mode), sequence, answered_at)
        for name, mode, sequence, answered_at in connection.execute(_ANSWERS, (nonce,)).fetchall()
    ]
