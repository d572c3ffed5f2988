"""Apply up to a basis, whoever else moves the projection meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.vocabulary.position import Basis

CONFLICTS = 100
"""Commits in a row that others may win before a driver gives up."""


def apply_until(
    projector: Projector,
    until: Basis | None,
    batch_records: int,
    on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None,
) -> list[ApplyReceipt]:
    """Apply up to a basis (None: the head), or as far as the log gives it. Returns the commits made here.

    Raises:
        ProjectionConflict: others keep moving the basis.
    """
    receipts: list[ApplyReceipt] = []
    conflicts = 0
    while True:
        try:
            receipt = projector.apply_available(max_records=batch_records, until=until)
        except ProjectionConflict:
            conflicts += 1
            if conflicts >= CONFLICTS:
                raise
            projector.forget()
            continue
        if receipt is None:
            return receipts
        conflicts = 0
        receipts.append(receipt)
        on_commit(receipt)
