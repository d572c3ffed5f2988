"""The verifier that stands alone: its vectors, those of RFC 8032, and the plane's own code beside it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.audit.merkle_tree import Frontier, inclusion_path, leaf_hash
from ofp_platform.audit.signing_keys import SigningKey, is_signed
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform_tests.audit.proof_vectors import FOLDER, vectors

PROGRAM = FOLDER.parent / "verify_proof.py"
VERIFIER = runpy.run_path(str(PROGRAM))
KEYS = json.loads((FOLDER / "keys.json").read_text())
GOOD = json.loads((FOLDER / "good.json").read_text())
BROKEN = json.loads((FOLDER / "broken.json").read_text())
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def run(proof: Path, key: str) -> tuple[int, list[str], str]:
    """The program without site packages and without the environment: exit code, lines, what it said beside them."""
    command = [sys.executable, "-I", "-S", str(PROGRAM), str(proof), "--public-key", key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_it_is_small_and_of_the_standard_library() -> None:
    text = PROGRAM.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["import argparse", "import hashlib", "import json", "import sys"]


def test_the_vectors_are_what_the_plane_makes() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == vectors()


@pytest.mark.parametrize("key", ["first_key", "second_key"])
def test_the_good_proof_is_proven(key: str) -> None:
    code, lines, err = run(FOLDER / "good.json", KEYS[key])
    assert (code, lines[-1], err) == (0, "PROVEN", "")
    steps = [line.removeprefix("ok     ").partition(":")[0] for line in lines[:-1]]
    assert steps == ["key chain", "head", "inclusion", "record", "decision", "snapshot", "origin event", "events"]


def test_a_decision_without_a_vector_is_proven_and_another_bundle_is_not(tmp_path: Path) -> None:
    path = FOLDER / "good_v1.json"
    code, lines, err = run(path, KEYS["first_key"])
    assert (code, lines[-1], err) == (0, "PROVEN", "")
    assert "ok     snapshot: none: it was decided without a vector" in lines
    proof = json.loads(path.read_text())
    record = json.loads(proof["record"])
    for name, value in (
        ("bundle", {"bundle": {"bundle_name": "b", "digest": "0" * 64}}),
        ("event_position", {**record["event_position"], "offset": 2}),
        ("event_id", "event-2"),
    ):
        with pytest.raises(VERIFIER["Fault"], match="its id is not that of its event and of what decided"):
            VERIFIER["check_decision"](record | {name: value}, proof)


def test_another_key_proves_nothing() -> None:
    code, lines, _ = run(FOLDER / "good.json", KEYS["stranger"])
    assert code == 1
    assert lines[-1].startswith("FAULT  key chain: key ")
    code, lines, _ = run(FOLDER / "good.json", "nonsense")
    assert (code, lines) == (1, ["FAULT  --public-key: the key is not 64 hex digits"])


def verify(content: bytes, key: str) -> str:
    """The fault of a proof in this process; "" for none."""
    try:
        VERIFIER["verify"](content, key, lambda step, words: None)
    except VERIFIER["Fault"] as fault:
        return str(fault)
    return ""


def test_the_verifier_in_this_process_says_the_same() -> None:
    assert verify((FOLDER / "good.json").read_bytes(), KEYS["first_key"]) == ""


@pytest.mark.parametrize("case", BROKEN, ids=[case["name"] for case in BROKEN])
def test_a_broken_proof_is_told_where(case: dict[str, Any], tmp_path: Path) -> None:
    assert len(BROKEN) >= 12
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(GOOD | case["replace"]), encoding="utf-8")
    assert verify(path.read_bytes(), KEYS["first_key"]).startswith(case["fault"])
    if case["name"] in ("another record", "a head of a stranger"):
        code, lines, err = run(path, KEYS["first_key"])
        assert (code, err) == (1, "")
        assert lines[-1].startswith(f"FAULT  {case['fault']}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no JSON"),
        (b"[]", "it is no object"),
        (b'{"kind": 1, "kind": 1}', "a member stands there twice"),
        (b"{}" + b" " * 32_768, "a proof has at most 32768"),
        (b"[" * 30_000, "no JSON"),
    ],
)
def test_a_file_that_is_no_proof_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    path.write_bytes(content)
    code, lines, err = run(path, KEYS["first_key"])
    assert (code, err) == (1, "")
    assert words in lines[-1]
    assert run(tmp_path / "none", KEYS["first_key"])[0] == 1


def test_members_of_any_type_end_in_words(tmp_path: Path) -> None:
    """No member may end the program with a stack trace."""
    for name in GOOD:
        for value in (None, [], {}, "x", -1, [None], [[]], {"kind": None}):
            assert verify_words(GOOD | {name: value})


def verify_words(proof: dict[str, Any]) -> bool:
    """Whether the proof ends in a fault, or is none because what it lacks is optional."""
    try:
        fault = verify(json.dumps(proof).encode(), KEYS["first_key"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return True  # main says so in words
    return bool(fault) or not all(proof[name] for name in ("snapshot", "origin_event", "events"))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ed25519_is_that_of_the_standard(seed: str, public: str, message: str, signature: str) -> None:
    key, text, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert VERIFIER["is_signed"](key, signed, text)
    assert SigningKey.of_seed(bytes.fromhex(seed)).sign(text) == signature
    assert not VERIFIER["is_signed"](key, signed, text + b"x")
    greater = (int.from_bytes(signed[32:], "little") + VERIFIER["ORDER"]).to_bytes(32, "little")
    assert not VERIFIER["is_signed"](key, signed[:32] + greater, text)  # the same number, written as a greater one


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 511), st.booleans())
def test_both_verifiers_of_signatures_say_the_same(seed: bytes, message: bytes, bit: int, is_flipped: bool) -> None:
    key = SigningKey.of_seed(seed)
    signature = bytearray.fromhex(key.sign(message))
    if is_flipped:
        signature[bit // 8] ^= 1 << bit % 8
    there = VERIFIER["is_signed"](bytes.fromhex(key.key_id), bytes(signature), message)
    assert there is is_signed(key.key_id, signature.hex(), message) is not is_flipped


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=4)
        ),
    )
)
def test_canonical_bytes_are_those_of_the_plane(value: Any) -> None:
    assert VERIFIER["canonical"](value, "x") == jcs_bytes(value)


@given(st.integers(1, 40), st.data())
def test_paths_lead_to_the_root_of_the_tree(size: int, data: st.DataObject) -> None:
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for index in range(size):
        nodes[0, index] = leaf_hash(bytes([index]))
        nodes |= {(level, place): above for level, place, above in frontier.add(nodes[0, index])}
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(index, size, lambda level, place: nodes[level, place])
    assert VERIFIER["root_of"](nodes[0, index], index, size, path, "x") == frontier.root
