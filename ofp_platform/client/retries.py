"""Retries of a client: which failures are tried again, how often, and after which wait."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from ofp_platform.client.answer import ServiceUnreachable
from ofp_platform.vocabulary.errors import ContractError


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long apart: before try n + 1, up to min(`longest_seconds`, `first_seconds` * 2^(n-1)), jittered.

    Retried are errors of the contract that say they are retryable, and lost connections. A read that timed out is not: the
    time of the decision is spent.
    """

    attempts: int = 3
    first_seconds: float = 0.05
    longest_seconds: float = 1.0

    def pause(self, attempt: int, chance: float) -> float:
        """Seconds to wait after a failed attempt (from 1), for a chance in [0, 1): between half and all of the step."""
        step: float = min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))
        return step * (0.5 + chance / 2)


def may_pass(error: BaseException) -> bool:
    """Whether asking again may end otherwise: see RetryPolicy."""
    if isinstance(error, ContractError):
        return error.retryable
    return isinstance(error, ServiceUnreachable) and not isinstance(error.__cause__, httpx.ReadTimeout)
