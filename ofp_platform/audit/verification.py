"""Verification of the audit log: leaves, nodes, roots, heads, objects, and the records themselves; each fault with its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ofp_platform.audit.faults import Fault, FaultKind
from ofp_platform.audit.head_checks import HeadChain, co_signature_faults, root_faults
from ofp_platform.audit.log_view import LogView
from ofp_platform.audit.tree_fold import TreeFold
from ofp_platform.vocabulary.loop.audit import CoSignature, TreeHead


@dataclass(frozen=True)
class Verification:
    """The outcome. `proven_leaves`: those in front of the newest head that is sound; `pending`: records by kind that no head has
    yet, of which nothing is said; `quarantined`: kind, subject and reason of those that cannot be a leaf.
    """

    log_id: str | None
    head: TreeHead | None
    head_count: int
    leaf_count: int
    proven_leaves: int
    co_signatures: tuple[CoSignature, ...]
    pending: dict[str, int]
    quarantined: tuple[tuple[str, str, str], ...]
    faults: tuple[Fault, ...]


def verify_log(view: LogView, log_key_id: str | None = None) -> Verification:
    """Check everything. `log_key_id`: the key that signed the first head, as somebody outside knows it; None: it is believed."""
    rows = view.heads()
    fold = TreeFold(frozenset(row.tree_size for row in rows))
    fold.run(view)
    chain = HeadChain(log_key_id)
    chain.run(rows, view.head_objects())
    wrong_roots = list(root_faults(chain.sound, fold.roots, fold.size))
    faults = [*fold.faults, *chain.faults, *wrong_roots]
    signature_faults, co_signatures = co_signature_faults(view.co_signatures(), chain.sound)
    faults += signature_faults
    with_wrong_root = {fault.subject for fault in wrong_roots}
    proving = [head for head in chain.sound if f"head/{head.tree_size}" not in with_wrong_root]
    newest_size = rows[-1].tree_size if rows else 0
    if not rows:
        faults.append(Fault(FaultKind.NO_HEAD, "head", "there is no head, so nothing is proven: `ofp audit append` makes one"))
    if fold.size > newest_size:
        words = "no head is behind these leaves: they were added by others than the appender, or heads were removed"
        faults.append(Fault(FaultKind.LEAF_BEHIND_HEAD, f"leaf/{newest_size}", words, (newest_size, fold.size)))
    pending: Counter[str] = Counter()
    for record in view.without_leaf(proving[-1].covers_until_utc if proving else None):
        if record.is_late:
            words = "it says that it is older than the newest head, and is no leaf: it was added behind the log's back"
            faults.append(Fault(FaultKind.RECORD_WITHOUT_LEAF, f"{record.leaf_kind}/{record.subject}", words))
        else:
            pending[record.leaf_kind] += 1
    return Verification(
        log_id=proving[0].log_id if proving else None,
        head=proving[-1] if proving else None,
        head_count=len(rows),
        leaf_count=fold.size,
        proven_leaves=proving[-1].tree_size if proving else 0,
        co_signatures=tuple(co_signatures),
        pending=dict(pending),
        quarantined=tuple(view.quarantined()),
        faults=tuple(faults),
    )
