"""YAML as the packs use it: a plain subset, with lines."""

from __future__ import annotations

import pytest

from ofp_platform.registry.pack_text import PackText, field_text
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", "p.yaml:2: not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2: not YAML: but found another document"),
        ("a: \x01", "p.yaml:1: not YAML: a character that YAML does not allow"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "p.yaml:4: b.c: written twice; first on line 3"),
        ("a: &x {b: 1}\nc: *x\n", "p.yaml:1: c: aliases are not used in packs"),
        ("a: !!python/name:os.system x\n", "p.yaml:1: a: YAML tags are not used in packs"),
        ("[a, b]: 1\n", "p.yaml:1: a field name must be a plain word"),
        ("[" * 5000, "p.yaml:1: nested too deeply"),
        ("x" * 1_000_001, "p.yaml:1: longer than 1000000 characters"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    assert expected in [str(error) for error in PackText(text, "p.yaml").errors]


def test_scalars_are_plain_data() -> None:
    source = PackText("a: [x, 1, true, null, 1.5, yes, 2020-01-01, '1', 0x10]\n", "p.yaml")
    assert source.data == {"a": ["x", 1, True, None, 1.5, "yes", "2020-01-01", "1", 16]}
    assert source.errors == []


def test_an_error_stands_at_the_nearest_line_there_is() -> None:
    source = PackText("a:\n  - b: 1\n  - c: 2\n", "p.yaml")
    source.report(("a", 1, "missing", 3), "nothing here")
    assert str(source.errors[0]) == "p.yaml:3: a[1].missing[3]: nothing here"


def test_raw_identifiers_are_found_inside_text_and_blotted_out() -> None:
    assert holds_raw_identifier("card 4111 1111 1111 1111!")
    assert not holds_raw_identifier("4111 1111 1111 1112")
    assert redact("card 4111-1111-1111-1111!") == "card <raw identifier>!"
    assert field_text(("groups", 0, "where", "x")) == "groups[0].where.x"
