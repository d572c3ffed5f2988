"""Single tampers, drawn at random: each changes a copy of a log, and says where it must be found.

All of them know how the log is made: hashes of leaves and nodes are put right again where that is tried, and heads are signed
anew with a key of the tamperer's own. The key of the log they do not have.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from ofp_platform.audit.faults import Fault
from ofp_platform.audit.leaf_rows import LeafRow
from ofp_platform.audit.log_view import HeadRow, NodeRow, RecordWithoutLeaf
from ofp_platform.audit.merkle_tree import Frontier, leaf_hash
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.loop.audit import AuditLeaf, TreeHead, head_path
from ofp_platform_tests.torture.audit_tampering.memory_view import MemoryView

STRANGER = SigningKey.of_seed(b"stranger" * 4)
HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Place:
    """The place at which a tamper must be found: a subject, or a leaf that a fault names or has among several."""

    subject: str | None = None
    leaf_index: int | None = None

    def is_named_by(self, fault: Fault) -> bool:
        """Whether a fault names it."""
        if self.subject is not None and fault.subject == self.subject:
            return True
        if self.leaf_index is None or fault.leaves is None:
            return False
        return fault.leaves[0] <= self.leaf_index < fault.leaves[1]


Tamper = Callable[[MemoryView, random.Random], list[Place]]
"""Changes the view; the places, each of which must be named."""


def _place(row: LeafRow) -> Place:
    return Place(f"{row.leaf_kind}/{row.subject}", row.leaf_index)


def _other_digit(text: str, rng: random.Random) -> str:
    """The text with one of its hex digits changed; one without any gets a blank more."""
    places = [place for place, letter in enumerate(text) if letter in HEX]
    if not places:
        return text + " "
    place = rng.choice(places)
    return text[:place] + rng.choice([digit for digit in HEX if digit != text[place]]) + text[place + 1 :]


def _other_byte(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def edit_record(view: MemoryView, rng: random.Random) -> list[Place]:
    """Bytes of a decision, label, fact, step or manifest."""
    row = rng.choice(view.leaf_rows)
    record = view.records_by_kind[row.leaf_kind][row.subject]
    assert record.content is not None
    view.records_by_kind[row.leaf_kind][row.subject] = replace(record, content=_other_byte(record.content, rng))
    return [_place(row)]


def edit_record_column(view: MemoryView, rng: random.Random) -> list[Place]:
    """A column that repeats what a record says."""
    row = rng.choice(view.leaf_rows)
    record = view.records_by_kind[row.leaf_kind][row.subject]
    view.records_by_kind[row.leaf_kind][row.subject] = replace(record, fault="its columns are not those of its content")
    return [_place(row)]


def delete_record(view: MemoryView, rng: random.Random) -> list[Place]:
    """A record, or the bytes of a manifest."""
    row = rng.choice(view.leaf_rows)
    if rng.random() < 0.5:
        del view.records_by_kind[row.leaf_kind][row.subject]
    else:
        record = view.records_by_kind[row.leaf_kind][row.subject]
        view.records_by_kind[row.leaf_kind][row.subject] = replace(record, content=None)
    return [_place(row)]


def swap_records(view: MemoryView, rng: random.Random) -> list[Place]:
    """Two records of a kind, each under the id of the other."""
    kind = rng.choice([kind for kind, records in view.records_by_kind.items() if len(records) > 1])
    rows = rng.sample([row for row in view.leaf_rows if row.leaf_kind == kind], 2)
    records = view.records_by_kind[kind]
    one, other = records[rows[0].subject], records[rows[1].subject]
    records[rows[0].subject], records[rows[1].subject] = other, one
    return [_place(row) for row in rows]


def back_date_record(view: MemoryView, rng: random.Random) -> list[Place]:
    """A record more, which says that it is older than the newest head."""
    kind, subject = rng.choice(list(view.records_by_kind)), rng.randbytes(32).hex()
    view.unaudited.append(RecordWithoutLeaf(kind, subject, is_late=True))
    return [Place(f"{kind}/{subject}")]


def edit_leaf(view: MemoryView, rng: random.Random) -> list[Place]:
    """One column of a leaf."""
    number = rng.randrange(len(view.leaf_rows))
    row = view.leaf_rows[number]
    column = rng.choice(["leaf_kind", "subject", "record_digest", "content", "leaf_hash"])
    if column == "leaf_hash":
        changed = row._replace(leaf_hash=_other_byte(row.leaf_hash, rng))
    elif column == "leaf_kind":
        changed = row._replace(leaf_kind=rng.choice([kind for kind in view.records_by_kind if kind != row.leaf_kind]))
    else:
        changed = row._replace(**{column: _other_digit(getattr(row, column), rng)})
    view.leaf_rows[number] = changed
    return [Place(leaf_index=row.leaf_index)]


def delete_leaf(view: MemoryView, rng: random.Random) -> list[Place]:
    """A leaf."""
    row = view.leaf_rows.pop(rng.randrange(len(view.leaf_rows)))
    return [Place(leaf_index=row.leaf_index)]


def swap_leaves(view: MemoryView, rng: random.Random) -> list[Place]:
    """Two leaves change places."""
    one, other = rng.sample(range(len(view.leaf_rows)), 2)
    rows = view.leaf_rows
    first, second = rows[one], rows[other]
    rows[one], rows[other] = first._replace(leaf_index=second.leaf_index), second._replace(leaf_index=first.leaf_index)
    return [Place(leaf_index=first.leaf_index), Place(leaf_index=second.leaf_index)]


def add_leaf(view: MemoryView, rng: random.Random) -> list[Place]:
    """A leaf behind the newest head, whole in itself and with a record."""
    leaf = _leaf_like(rng.choice(view.leaf_rows), rng)
    index = len(view.leaf_rows)
    view.leaf_rows.append(_row(index, leaf))
    return [Place(leaf_index=index)]


def rewrite_leaf(view: MemoryView, rng: random.Random) -> list[Place]:
    """A record with its leaf, and every hash above it put right again, up to the roots: only signed heads stay as they were."""
    number = rng.randrange(len(view.leaf_rows))
    row = view.leaf_rows[number]
    record = view.records_by_kind[row.leaf_kind][row.subject]
    assert record.content is not None
    record = replace(record, content=record.content + b" ")
    view.records_by_kind[row.leaf_kind][row.subject] = record
    leaf = AuditLeaf.model_validate_json(row.content).model_copy(update={"record_digest": record.digest})
    view.leaf_rows[number] = _row(row.leaf_index, leaf)
    _grow_again(view)
    return [Place(leaf_index=row.leaf_index)]


def rewrite_everything(view: MemoryView, rng: random.Random) -> list[Place]:
    """As `rewrite_leaf`, and every head and its object signed anew, with the tamperer's key."""
    rewrite_leaf(view, rng)
    roots = _grow_again(view)
    previous: TreeHead | None = None
    for number, row in enumerate(view.head_rows):
        head = TreeHead.model_validate_json(row.content)
        names = {"root_hash": roots[head.tree_size].hex(), "previous_head_digest": None if previous is None else previous.digest}
        if rng.random() < 0.5:
            names |= {"key_id": STRANGER.key_id, "log_id": sha256_hex(bytes.fromhex(STRANGER.key_id)), "next_key_id": None}
        previous = _signed(head.model_copy(update=names))
        _put_head(view, number, previous)
    return [Place("head/" + str(row.tree_size)) for row in view.head_rows]


def edit_node(view: MemoryView, rng: random.Random) -> list[Place]:
    """The hash of a node."""
    number = rng.randrange(len(view.node_rows))
    node = view.node_rows[number]
    view.node_rows[number] = node._replace(hash=_other_byte(node.hash, rng))
    return [Place(f"node/{node.level}/{node.place}")]


def delete_node(view: MemoryView, rng: random.Random) -> list[Place]:
    """A node."""
    node = view.node_rows.pop(rng.randrange(len(view.node_rows)))
    return [Place(f"node/{node.level}/{node.place}")]


def add_node(view: MemoryView, rng: random.Random) -> list[Place]:
    """A node of no leaves."""
    node = NodeRow(rng.randrange(1, 8), len(view.leaf_rows) + rng.randrange(1_000), rng.randbytes(32))
    view.node_rows.append(node)
    return [Place(f"node/{node.level}/{node.place}")]


def edit_head(view: MemoryView, rng: random.Random) -> list[Place]:
    """One member of a head, in its row, in its object, or in both; signed anew or not."""
    number = rng.randrange(len(view.head_rows))
    row = view.head_rows[number]
    head = TreeHead.model_validate_json(row.content)
    name = rng.choice(["root_hash", "at_utc", "previous_head_digest", "key_id", "next_key_id", "log_id", "covers_until_utc"])
    time = f"20{rng.randrange(10, 99)}-01-01T00:00:00Z"
    changed = head.model_copy(update={name: time if name.endswith("_utc") else rng.randbytes(32).hex()})
    if rng.random() < 0.5:
        changed = _signed(changed)
    where = rng.choice(["row", "object", "both"])
    if where != "object":
        view.head_rows[number] = HeadRow(row.tree_size, changed.digest, changed.encoded().decode())
    if where != "row":
        view.objects[head_path(row.tree_size)] = changed.encoded()
    return [Place(f"head/{row.tree_size}")]


def edit_head_bytes(view: MemoryView, rng: random.Random) -> list[Place]:
    """One byte of a head's object, of its text, or of its digest."""
    number = rng.randrange(len(view.head_rows))
    row = view.head_rows[number]
    path = head_path(row.tree_size)
    match rng.randrange(3):
        case 0:
            view.objects[path] = _other_byte(view.objects[path], rng)
        case 1:
            view.head_rows[number] = row._replace(content=_other_digit(row.content, rng))
        case _:
            view.head_rows[number] = row._replace(digest=_other_digit(row.digest, rng))
    return [Place(f"head/{row.tree_size}")]


def delete_head(view: MemoryView, rng: random.Random) -> list[Place]:
    """The row of a head, its object, or both. Of both the head behind it tells, or the leaves that nothing is behind of."""
    number = rng.randrange(len(view.head_rows))
    row = view.head_rows[number]
    where = rng.choice(["row", "object", "both"])
    if where != "object":
        del view.head_rows[number]
    if where != "row":
        del view.objects[head_path(row.tree_size)]
    if where != "both":
        return [Place(f"head/{row.tree_size}")]
    if number < len(view.head_rows):
        return [Place(f"head/{view.head_rows[number].tree_size}")]
    return [Place(leaf_index=row.tree_size - 1)]


def swap_heads(view: MemoryView, rng: random.Random) -> list[Place]:
    """Two heads, each in the row (or under the path) of the other."""
    one, other = rng.sample(range(len(view.head_rows)), 2)
    first, second = view.head_rows[one], view.head_rows[other]
    if rng.random() < 0.5:
        view.head_rows[one] = second._replace(tree_size=first.tree_size)
        view.head_rows[other] = first._replace(tree_size=second.tree_size)
    else:
        paths = head_path(first.tree_size), head_path(second.tree_size)
        view.objects[paths[0]], view.objects[paths[1]] = view.objects[paths[1]], view.objects[paths[0]]
    return [Place(f"head/{first.tree_size}"), Place(f"head/{second.tree_size}")]


def truncate(view: MemoryView, rng: random.Random) -> list[Place]:
    """Everything behind an earlier head: leaves, nodes, rows of heads; their objects are somewhere else."""
    number = rng.randrange(len(view.head_rows) - 1)
    size = view.head_rows[number].tree_size
    gone = [row.tree_size for row in view.head_rows[number + 1 :]]
    del view.head_rows[number + 1 :]
    del view.leaf_rows[size:]
    view.node_rows = [node for node in view.node_rows if node.place + 1 << node.level <= size]
    return [Place(f"head/{tree_size}") for tree_size in gone]


def edit_co_signature(view: MemoryView, rng: random.Random) -> list[Place]:
    """A byte of a witness's signature."""
    path = rng.choice(list(view.signatures))
    view.signatures[path] = _other_byte(view.signatures[path], rng)
    return [Place(path)]


TAMPERS: dict[str, tuple[Tamper, ...]] = {
    "records edited": (edit_record, edit_record_column),
    "records deleted": (delete_record,),
    "records reordered": (swap_records,),
    "records back-dated": (back_date_record,),
    "leaves edited": (edit_leaf, rewrite_leaf),
    "leaves deleted": (delete_leaf,),
    "leaves reordered": (swap_leaves,),
    "leaves added": (add_leaf,),
    "nodes edited, deleted, added": (edit_node, delete_node, add_node),
    "heads edited": (edit_head, edit_head_bytes, rewrite_everything),
    "heads deleted": (delete_head, truncate),
    "heads reordered": (swap_heads,),
    "co-signatures edited": (edit_co_signature,),
}
"""By the words of a row of figures."""


def _leaf_like(row: LeafRow, rng: random.Random) -> AuditLeaf:
    return AuditLeaf.model_validate_json(row.content).model_copy(update={"subject": rng.randbytes(32).hex()})


def _row(index: int, leaf: AuditLeaf) -> LeafRow:
    encoded = leaf.encoded()
    return LeafRow(index, leaf.leaf_kind, leaf.subject, leaf.record_digest, encoded.decode(), leaf_hash(encoded))


def _grow_again(view: MemoryView) -> dict[int, bytes]:
    """Put every node right, and give the root at each size."""
    frontier, roots = Frontier(), dict[int, bytes]()
    view.node_rows = []
    for row in view.leaf_rows:
        view.node_rows += [NodeRow(*node) for node in frontier.add(row.leaf_hash)]
        roots[frontier.size] = frontier.root
    return roots


def _signed(head: TreeHead) -> TreeHead:
    return head.model_copy(update={"signature": STRANGER.sign(head.signed_bytes)})


def _put_head(view: MemoryView, number: int, head: TreeHead) -> None:
    view.head_rows[number] = HeadRow(head.tree_size, head.digest, head.encoded().decode())
    view.objects[head_path(head.tree_size)] = head.encoded()
