"""Labels that wait for the label store: asked for again, a few times, until it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from ofp_platform.cases.case_desk import CaseDesk
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused

_PAGE = 1_000
"""Labels that are read at once."""
_FIRST_SECONDS, _LONGEST_SECONDS = 1, 30


@dataclass(frozen=True)
class SettlementReport:
    """Counts of labels. `problem`: why some are pending still; empty where none is."""

    accepted_count: int
    rejected_count: int
    pending: int
    problem: str = ""


def settle_labels(desk: CaseDesk, attempts: int, pause: Callable[[float], None]) -> SettlementReport:
    """Ask the label store for every label that is pending when it begins, the oldest first.

    Where it does not answer it is asked `attempts` times, `pause(seconds)` between them (1, 2, 4, ... at most 30); then the
    settlement ends, and what it did not come to stays pending.

    Raises:
        psycopg.Error: the database of the cases does not answer.
    """
    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=_FIRST_SECONDS, max=_LONGEST_SECONDS),
        retry=retry_if_exception_type(BuildRefused),
        sleep=pause,
        reraise=True,
    )
    left_count = desk.count_pending()
    accepted_count = rejected_count = 0
    # what has its answer is pending no more, so the next page is behind it; what is asserted meanwhile waits for the next time
    while left_count and (page := desk.pending(min(left_count, _PAGE))):
        for label in page:
            try:
                is_accepted = retrying(desk.settle, label)
            except BuildRefused as error:
                return SettlementReport(accepted_count, rejected_count, left_count, error.message)
            accepted_count += is_accepted
            rejected_count += not is_accepted
            left_count -= 1
    return SettlementReport(accepted_count, rejected_count, 0)
