"""A Merkle tree as RFC 6962 (and 9162) hashes it: roots, inclusion and consistency proofs. Pure.

Every proof is made of the hashes of *complete* subtrees, which never change: that of level l and index i is over the 2^l leaves
from i * 2^l on. `NodeReader` gives them; a proof asks for O(log n) of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

NodeReader = Callable[[int, int], bytes]
"""Hash of the complete subtree of a level and an index; of level 0: of a leaf."""
EMPTY_ROOT = sha256(b"").digest()


class ProofRefused(Exception):
    """A proof does not lead where it should; the text says in which way."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of a leaf, 32 bytes."""
    return sha256(b"\0" + leaf).digest()


def node_hash(left_hash: bytes, right_hash: bytes) -> bytes:
    """Hash of two subtrees, 32 bytes."""
    return sha256(b"\1" + left_hash + right_hash).digest()


def peaks(size: int) -> list[tuple[int, int]]:
    """The complete subtrees that a tree of that size consists of, from the left: level and index of each."""
    begin, nodes = 0, []
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            nodes.append((level, begin >> level))
            begin += 1 << level
    return nodes


@dataclass
class Frontier:
    """The right edge of a growing tree: O(log n) hashes. `hashes`: those of `peaks(size)`."""

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    @classmethod
    def at(cls, size: int, node: NodeReader) -> Frontier:
        """The edge of a tree whose nodes are kept."""
        return cls(size, [node(level, index) for level, index in peaks(size)])

    def add(self, leaf: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Add a leaf by its hash: the nodes above it that are complete now (level, index, hash), from the lowest up.

        The tree has grown when the last one was taken.
        """
        level, index, above = 0, self.size, leaf
        while index & 1:
            level, index, above = level + 1, index >> 1, node_hash(self.hashes.pop(), above)
            yield level, index, above
        self.hashes.append(above)
        self.size += 1

    @property
    def root(self) -> bytes:
        """Root hash of the tree."""
        return _root_over(self.hashes)


def _root_over(hashes: Sequence[bytes]) -> bytes:
    """Root over complete subtrees that stand beside each other, largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left_hash in reversed(hashes[:-1]):
        root = node_hash(left_hash, root)
    return root


def _range_hash(begin: int, end: int, node: NodeReader) -> bytes:
    """Hash over the leaves of `[begin, end)`, a subtree of the tree: `begin` is a multiple of a power of two >= its length."""
    return _root_over([node(level, (begin >> level) + index) for level, index in peaks(end - begin)])


def _split(length: int) -> int:
    """The greatest power of two below a length >= 2."""
    return 1 << (length - 1).bit_length() - 1


def inclusion_path(leaf_index: int, size: int, node: NodeReader) -> list[bytes]:
    """The proof that a leaf is in the tree of that size: sibling hashes from the leaf up (RFC 6962, 2.1.1).

    Raises:
        ValueError: there is no such leaf in it.
    """
    if not 0 <= leaf_index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {leaf_index}")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if leaf_index < middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_path(first: int, second: int, node: NodeReader) -> list[bytes]:
    """The proof that the tree of `first` leaves is the beginning of that of `second` (RFC 6962, 2.1.2).

    Raises:
        ValueError: not 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError(f"a tree of {first} leaves is no beginning of one of {second}")
    begin, end, path, whole = 0, second, [], True
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        path.append(_range_hash(begin, end, node))
    return path[::-1]


def check_inclusion(leaf: bytes, leaf_index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof as RFC 9162, 2.1.3.2, says. `leaf`: its hash.

    Raises:
        ProofRefused: it does not prove that.
    """
    if not 0 <= leaf_index < size:
        raise ProofRefused(f"a tree of {size} leaves has no leaf {leaf_index}")
    place, last, above = leaf_index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofRefused("the inclusion proof is too long")
        if place & 1 or place == last:
            above = node_hash(sibling, above)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            above = node_hash(above, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ProofRefused("the inclusion proof is too short")
    if above != root:
        raise ProofRefused("the inclusion proof leads to another root")


def check_consistency(first: int, second: int, roots: tuple[bytes, bytes], path: Sequence[bytes]) -> None:
    """Check a consistency proof as RFC 9162, 2.1.4.2, says. `roots`: of the smaller and of the larger tree.

    Raises:
        ProofRefused: it does not prove that.
    """
    if not 0 < first <= second:
        raise ProofRefused(f"a tree of {first} leaves is no beginning of one of {second}")
    if first == second:
        if path or roots[0] != roots[1]:
            raise ProofRefused("two trees of one size have one root, and no proof between them")
        return
    hashes = [roots[0], *path] if first & first - 1 == 0 else list(path)
    if not hashes:
        raise ProofRefused("the consistency proof is too short")
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    smaller = larger = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofRefused("the consistency proof is too long")
        if place & 1 or place == last:
            smaller, larger = node_hash(sibling, smaller), node_hash(sibling, larger)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            larger = node_hash(larger, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ProofRefused("the consistency proof is too short")
    if smaller != roots[0] or larger != roots[1]:
        raise ProofRefused("the consistency proof leads to another root")
