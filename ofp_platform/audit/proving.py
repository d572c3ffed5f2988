"""Proof of one record: its leaf, the hashes from there to the root of the newest head, and how that head's key came to sign.

The evidence behind a decision is not the audit log's to look for: whoever has snapshot and events gives them (`with_evidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.audit.head_checks import co_signature_faults
from ofp_platform.audit.leaf_rows import LeafRow, find_leaves, kept_node
from ofp_platform.audit.leaf_sources import SOURCE_OF
from ofp_platform.audit.merkle_tree import ProofRefused, check_inclusion, inclusion_path
from ofp_platform.audit.tree_heads import AuditRefused, key_chain, read_heads
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.audit import (
    CO_SIGNATURES,
    MOST_PROOF_BYTES,
    AuditLeaf,
    AuditProof,
    ProvenEvent,
    ProvenSnapshot,
    TreeHead,
    co_signature_path,
)

_QUARANTINE = """
    SELECT leaf_kind, reason FROM ofp.audit_quarantine
    WHERE subject = %(id)s OR split_part(subject, ':', 2) = %(id)s LIMIT 1"""


def prove_record(connection: Connection[Any], objects: ObjectStore, identifier: str) -> AuditProof:
    """The proof of the record with that id under the newest head: a decision, an assertion of a label, a dataset (its identity),
    a fact (its digest), or a step of a run (RUN/NUMBER).

    Raises:
        AuditRefused: it is no leaf yet, several have that id, the record is another one by now, or the proof does not hold.
        NodeMissing | ObjectStoreUnavailable: see there.
    """
    heads = read_heads(connection)
    if not heads:
        raise AuditRefused("there is no head, so nothing is proven: `ofp audit append` makes one")
    head = heads[-1]
    row = _one_leaf(connection, identifier)
    if row.leaf_index >= head.tree_size:
        raise AuditRefused(f"leaf {row.leaf_index} is behind the newest head: `ofp audit verify` says what else is so")
    record = SOURCE_OF[row.leaf_kind].records(connection, objects, [row.subject]).get(row.subject)
    if record is None or record.content is None or record.digest != row.record_digest:
        raise AuditRefused(f"the record {row.leaf_kind}/{row.subject} is not the one that its leaf names: `ofp audit verify`")
    path = inclusion_path(row.leaf_index, head.tree_size, lambda level, index: kept_node(connection, level, index))
    try:
        check_inclusion(bytes(row.leaf_hash), row.leaf_index, head.tree_size, path, bytes.fromhex(head.root_hash))
    except ProofRefused as error:
        raise AuditRefused(f"{error}: the tree as it is kept is not what was signed; `ofp audit verify` says where") from None
    return AuditProof(
        leaf=AuditLeaf.model_validate_json(row.content),
        leaf_index=row.leaf_index,
        path=tuple(sibling.hex() for sibling in path),
        head=_co_signed(objects, head),
        key_chain=key_chain(heads, head),
        record=record.content.decode(),
    )


def _one_leaf(connection: Connection[Any], identifier: str) -> LeafRow:
    if not identifier:
        raise AuditRefused("name a record: a decision, an assertion of a label, a dataset, a fact, or RUN/NUMBER of a step")
    rows = find_leaves(connection, identifier)
    if len(rows) > 1:
        names = ", ".join(f"{row.leaf_kind} {row.subject}" for row in rows[:5])
        raise AuditRefused(f"several records have the id {identifier}: {names}; name it as it stands there")
    if rows:
        return rows[0]
    aside = connection.execute(_QUARANTINE, {"id": identifier}).fetchone()
    if aside is not None:
        raise AuditRefused(f"{aside[0]} {identifier} is in quarantine: {aside[1]}")
    raise AuditRefused(
        f"no record {identifier} is a leaf of the audit log: write its whole id; `ofp audit append` adds what is new"
    )


def _co_signed(objects: ObjectStore, head: TreeHead) -> TreeHead:
    """The head with the signatures of others that hold for it."""
    folder = co_signature_path(head.tree_size, "").rpartition("/")[0]
    assert folder.startswith(CO_SIGNATURES)
    contents = {path: objects.get(path) for path in objects.list(folder)}
    _, co_signatures = co_signature_faults(contents, [head])  # `ofp audit verify` tells those that are wrong
    return head.model_copy(update={"co_signatures": tuple(co_signatures)})


def with_evidence(
    proof: AuditProof, snapshot: ProvenSnapshot | None, origin_event: ProvenEvent | None, events: Sequence[ProvenEvent]
) -> AuditProof:
    """The proof of a decision with what it was made from."""
    return proof.model_copy(update={"snapshot": snapshot, "origin_event": origin_event, "events": tuple(events)})


def proof_file(proof: AuditProof) -> bytes:
    """The canonical bytes of a proof.

    Raises:
        AuditRefused: they are more than one file may hold.
    """
    content = canonical_bytes(proof.wire())
    if len(content) > MOST_PROOF_BYTES:
        raise AuditRefused(
            f"the proof takes {len(content):,} bytes, and {MOST_PROOF_BYTES:,} are allowed; {len(proof.events):,} events are in"
            " it: leave them out (`--no-events`), or the payload (without `--with-payload`)"
        )
    return content
