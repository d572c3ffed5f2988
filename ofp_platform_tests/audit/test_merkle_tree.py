"""The tree against the recursive definitions of RFC 6962, and the vectors of Certificate Transparency."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.audit.merkle_tree import (
    EMPTY_ROOT,
    Frontier,
    ProofRefused,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)

LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    n = len(leaves)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(n)
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of 2.1.1."""
    n = len(leaves)
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*naive_path(m, leaves[:k]), mth(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), mth(leaves[:k])]


def naive_proof(m: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = split(n)
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), mth(leaves[:k])]


class Grown:
    """A tree that grew leaf by leaf, with every node kept; and how many were asked for."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.frontier, self.nodes, self.asked = Frontier(), dict[tuple[int, int], bytes](), 0
        for index, leaf in enumerate(leaves):
            self.nodes[0, index] = leaf_hash(leaf)
            for level, place, above in self.frontier.add(leaf_hash(leaf)):
                assert (level, place) not in self.nodes
                self.nodes[level, place] = above

    def node(self, level: int, index: int) -> bytes:
        self.asked += 1
        return self.nodes[level, index]


def test_the_vectors_of_certificate_transparency() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    grown = Grown(LEAVES)
    assert [Frontier.at(size + 1, grown.node).root.hex() for size in range(8)] == ROOTS
    assert Frontier.at(0, grown.node).root == Frontier().root == EMPTY_ROOT
    # path of the first and the sixth leaf in trees of 8, as Certificate Transparency's tests have them
    assert [hash_.hex()[:16] for hash_ in inclusion_path(0, 8, grown.node)] == [
        "96a296d224f285c6",
        "5f083f0a1a33ca07",
        "6b47aaf29ee3c2af",
    ]
    assert [hash_.hex()[:16] for hash_ in inclusion_path(5, 8, grown.node)] == [
        "bc1a0643b12e4d2d",
        "ca854ea128ed050b",
        "d37ee418976dd957",
    ]
    assert consistency_path(1, 1, grown.node) == []
    assert [hash_.hex()[:16] for hash_ in consistency_path(1, 8, grown.node)] == [
        "96a296d224f285c6",
        "5f083f0a1a33ca07",
        "6b47aaf29ee3c2af",
    ]
    assert [hash_.hex()[:16] for hash_ in consistency_path(6, 8, grown.node)] == [
        "0ebc5d3437fbe2db",
        "ca854ea128ed050b",
        "d37ee418976dd957",
    ]


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70), st.data())
def test_roots_and_proofs_are_those_of_the_definitions(leaves: list[bytes], data: st.DataObject) -> None:
    grown = Grown(leaves)
    assert grown.frontier.root == mth(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    root = mth(leaves[:size])
    assert Frontier.at(size, grown.node).root == root
    path = inclusion_path(index, size, grown.node)
    assert path == naive_path(index, leaves[:size])
    check_inclusion(leaf_hash(leaves[index]), index, size, path, root)
    first = data.draw(st.integers(1, size))
    proof = consistency_path(first, size, grown.node)
    assert proof == naive_proof(first, leaves[:size])
    roots = mth(leaves[:first]), root
    check_consistency(first, size, roots, proof)
    # what is changed anywhere is refused
    for broken in ([*path, root], path[:-1] if path else [root], [hash_[::-1] for hash_ in path] or [root]):
        with pytest.raises(ProofRefused):
            check_inclusion(leaf_hash(leaves[index]), index, size, broken, root)
    with pytest.raises(ProofRefused):
        check_inclusion(leaf_hash(leaves[index] + b"x"), index, size, path, root)
    with pytest.raises(ProofRefused):
        check_consistency(first, size, roots, [*proof, root])
    with pytest.raises(ProofRefused):
        check_consistency(first, size, (roots[0][::-1], root), proof)
    if proof:
        with pytest.raises(ProofRefused):
            check_consistency(first, size, roots, proof[:-1])
        with pytest.raises(ProofRefused):
            check_consistency(first, size, (roots[0], root[::-1]), proof)


def test_a_proof_of_a_large_tree_asks_for_few_nodes() -> None:
    grown = Grown([number.to_bytes(4, "big") for number in range(20_000)])
    for index in (0, 12_345, 19_999):
        grown.asked = 0
        inclusion_path(index, 19_999 + 1, grown.node)
        assert grown.asked <= 2 * 15
        grown.asked = 0
        consistency_path(index + 1, 20_000, grown.node)
        assert grown.asked <= 2 * 15


def test_what_is_not_in_the_tree_is_refused() -> None:
    grown = Grown(LEAVES)
    with pytest.raises(ValueError, match="a tree of 8 leaves has no leaf 8"):
        inclusion_path(8, 8, grown.node)
    for first, second in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="is no beginning of"):
            consistency_path(first, second, grown.node)
        with pytest.raises(ProofRefused, match="is no beginning of"):
            check_consistency(first, second, (EMPTY_ROOT, EMPTY_ROOT), [])
    with pytest.raises(ProofRefused, match="has no leaf 9"):
        check_inclusion(leaf_hash(b""), 9, 8, [], EMPTY_ROOT)
    with pytest.raises(ProofRefused, match="too short"):
        check_consistency(3, 8, (EMPTY_ROOT, EMPTY_ROOT), [])
