"""A challenge: each live decider says under which mode it decides, or is named because it did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from psycopg import Connection, sql

from ofp_platform.storage.notices import LOOK_SECONDS
from ofp_platform.storage.posture_challenges import ChallengeAnswer, add_challenge, challenge_answers, live_deciders
from ofp_platform.storage.posture_changes import POSTURE_CHANNEL, hold_posture_shared, posture_history, tell_of_posture
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce

_MOST_CHANGES = 1_000  # of which a decider could speak


@dataclass(frozen=True)
class ChallengeOutcome:
    """Who answered a challenge under the mode in force or a later one, who under another, and who did not; sorted by name."""

    nonce: str
    in_force: PostureInForce
    answered: tuple[ChallengeAnswer, ...]
    otherwise: tuple[ChallengeAnswer, ...]
    silent: tuple[str, ...]

    @property
    def is_proved(self) -> bool:
        """Whether there is a decider, and each of them decides under the mode in force."""
        return bool(self.answered) and not self.otherwise and not self.silent


def challenge_deciders(
    connection: Connection[object],
    pins: ContextPins,
    *,
    nonce: str,
    actor: str,
    wait_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> ChallengeOutcome:
    """Ask each live decider of a run, and wait until all have answered, at most `wait_seconds`. `nonce`: 32 hex digits, of nobody
    else; `connection`: an own one, in autocommit, which listens afterwards.

    Raises:
        psycopg.Error: the database does not answer; what was asked stays asked.
    """
    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(POSTURE_CHANNEL)))
    with connection.transaction():
        in_force = hold_posture_shared(connection, pins)
        asked_names = set(live_deciders(connection, pins))
        add_challenge(connection, pins, nonce, actor)
    tell_of_posture(connection, pins)
    until = monotonic() + wait_seconds
    while True:
        asked_names |= set(live_deciders(connection, pins))
        answers = challenge_answers(connection, nonce)
        missing = asked_names - {answer.answered_by for answer in answers}
        left_seconds = until - monotonic()
        if not missing or left_seconds <= 0:
            break
        for _ in connection.notifies(timeout=min(left_seconds, LOOK_SECONDS), stop_after=1):
            pass
    changes = posture_history(connection, pins, _MOST_CHANGES)
    modes: dict[int | None, Mode] = {change.sequence: change.mode for change, _ in changes}
    if in_force.sequence is None:
        modes[None] = in_force.mode
    right = [answer for answer in answers if _is_right(answer, in_force, modes)]
    otherwise = [answer for answer in answers if answer not in right]
    return ChallengeOutcome(nonce, in_force, tuple(right), tuple(otherwise), tuple(sorted(missing)))


def _is_right(answer: ChallengeAnswer, in_force: PostureInForce, modes: Mapping[int | None, Mode]) -> bool:
    """Whether an answer names a change that there is, and none older than the one in force when it was asked."""
    is_older = in_force.sequence is not None and (answer.sequence is None or answer.sequence < in_force.sequence)
    return not is_older and modes.get(answer.sequence) is answer.mode
