"""Waiting for a build that somebody else does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ofp_platform.offline.runs.run_ledger import RunLedger
    from ofp_platform.vocabulary.offline.build_run import BuildRun

_LOOK_SECONDS = 0.5
_ENDS = ("DONE", "FAILED")


def wait_for(ledger: RunLedger, run: str, deadline: float | None, tell: Callable[[str], None]) -> BuildRun:
    """The run as it stands when it has ended, or at the deadline (of time.monotonic; None: there is none).

    `tell` is given a line whenever its state changes, and for every stage that ends.

    Raises:
        UnknownRun: there is none.
    """
    state, stage_count = "", 0
    while True:
        build_run = ledger.show(run)
        receipts = ledger.receipts(build_run.run_key)
        if build_run.state.value != state:
            state = build_run.state.value
            tell(f"{build_run.changed_at_utc}  {state}, attempt {build_run.attempts} of {build_run.attempt_limit}")
        for receipt in receipts[stage_count:]:
            tell(f"{receipt.recorded_at_utc}  {receipt.stage}: {receipt.digest}")
        stage_count = len(receipts)
        if state in _ENDS or (deadline is not None and time.monotonic() >= deadline):
            return build_run
        time.sleep(_LOOK_SECONDS if deadline is None else max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic())))
