"""Rows of leaves and nodes: appended in order, read one by one for proofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.audit.merkle_tree import Frontier, leaf_hash
from ofp_platform.vocabulary.loop.audit import AuditLeaf

_LEAF = "SELECT leaf_index, leaf_kind, subject, record_digest, content, leaf_hash FROM ofp.audit_leaf"
_NODE = "SELECT hash FROM ofp.audit_node WHERE (level, index) = (%s, %s)"
_LEAF_HASH = "SELECT leaf_hash FROM ofp.audit_leaf WHERE leaf_index = %s"


class LeafRow(NamedTuple):
    """One row of `ofp.audit_leaf`."""

    leaf_index: int
    leaf_kind: str
    subject: str
    record_digest: str
    content: str
    leaf_hash: bytes


class NodeMissing(Exception):
    """A node of the tree is not there; the text says which."""


def kept_node(connection: Connection[Any], level: int, index: int) -> bytes:
    """The hash of a complete subtree as it is kept.

    Raises:
        NodeMissing: it is not.
    """
    row = connection.execute(_NODE if level else _LEAF_HASH, (level, index) if level else (index,)).fetchone()
    if row is None:
        raise NodeMissing(f"node {index} of level {level} of the audit tree is not kept: `ofp audit verify` says what else is so")
    return bytes(row[0])


def next_index(connection: Connection[Any]) -> int:
    """How many leaves there are: one behind the greatest index."""
    row = connection.execute("SELECT coalesce(max(leaf_index) + 1, 0) FROM ofp.audit_leaf").fetchone()
    assert row is not None
    return int(row[0])


def find_leaves(connection: Connection[Any], identifier: str) -> list[LeafRow]:
    """The leaves whose subject is an id, or `RUN/id` (of labels and steps of runs), or `NAME:id` (of datasets)."""
    rows = connection.execute(
        f"{_LEAF} WHERE subject = %(id)s OR split_part(subject, '/', 2) = %(id)s OR split_part(subject, ':', 2) = %(id)s"
        " ORDER BY leaf_index",
        {"id": identifier},
    ).fetchall()
    return [LeafRow(*row) for row in rows]


def append_leaves(connection: Connection[Any], frontier: Frontier, leaves: Sequence[AuditLeaf]) -> None:
    """Append leaves and the nodes that they complete, in the caller's transaction; the frontier grows with them."""
    nodes: list[tuple[int, int, bytes]] = []
    with connection.cursor() as cursor:
        columns = "leaf_index, leaf_kind, subject, record_digest, content, leaf_hash"
        with cursor.copy(f"COPY ofp.audit_leaf ({columns}) FROM STDIN") as copy:
            for leaf in leaves:
                leaf_bytes = leaf.encoded()
                hash_bytes = leaf_hash(leaf_bytes)
                copy.write_row((frontier.size, leaf.leaf_kind, leaf.subject, leaf.record_digest, leaf_bytes.decode(), hash_bytes))
                nodes.extend(frontier.add(hash_bytes))
        with cursor.copy("COPY ofp.audit_node (level, index, hash) FROM STDIN") as copy:
            for node in nodes:
                copy.write_row(node)
