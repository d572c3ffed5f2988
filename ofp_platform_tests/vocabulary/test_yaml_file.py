"""YAML files from outside: whatever stands in one, it is told in words, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.vocabulary import text_file
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.yaml_file import YamlFault, load_yaml, read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


class Ask(Model):
    """A file of one field."""

    world: str


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("world: a\nworld: b\n", ":2: the field world is written twice"),
        ("a: [1\nb: 2\n", ":2: not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", ":2: not YAML: but found another document"),
        ("world: \x00\n", ": not YAML: a character that YAML does not allow"),
        ("a: 1\nworld: !!int x\n", ":2: not YAML: a value that YAML does not have; write a text in quotes"),
        ("world: !!bool x\n", ":1: not YAML: a value that YAML does not have; write a text in quotes"),
        ("world: 0x_\n", ":1: not YAML: a value that YAML does not have; write a text in quotes"),
        (f"world: {'9' * 5_000}\n", ":1: not YAML: a value that YAML does not have; write a text in quotes"),
        ("world: 4111111111111111\nworld: *4111111111111111\n", ":2: not YAML: found undefined alias '<raw identifier>'"),
        ("[" * 5_000, ": nested too deeply"),
        ("world: &a [*a]\n", ": its aliases make more than 1,000,000 values of it: write out what they stand for"),
        (LAUGHS, ": its aliases make more than 1,000,000 values of it: write out what they stand for"),
        ('world: "a\\0b"\n', ": a text holds U+0000, which cannot be stored"),
        ("", ": the file: should be fields with their values"),
        ("- 1\n", ": the file: should be fields with their values"),
        ("word: a\n", ": world: Field required"),
    ],
)
def test_a_file_that_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(YamlFault) as caught:
        load_yaml(path, Ask)
    assert str(caught.value).splitlines()[0] == f"{path}{words}"


@pytest.mark.parametrize("text", ["2026-02-30", "2026-02-01", "2026-02-30T25:00:00Z"])
def test_a_time_is_the_text_that_was_written(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text(f"world: {text}\n", encoding="utf-8")
    assert load_yaml(path, Ask).world == text


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(YamlFault, match=r"none\.yaml: No such file or directory; write one"):
        read_yaml(tmp_path / "none.yaml", "; write one")
    with pytest.raises(YamlFault, match="Is a directory"):
        read_yaml(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"world: caf\xe9\n")
    with pytest.raises(YamlFault, match=r"latin\.yaml: is not UTF-8 text"):
        read_yaml(path)
    monkeypatch.setattr(text_file, "MOST_BYTES", 100)
    for endless in (Path("/dev/zero"), tmp_path / "long.yaml"):
        if endless.parent == tmp_path:
            endless.write_bytes(b"#" * 101)
        with pytest.raises(YamlFault, match=f"{endless.name}: larger than 100 bytes$"):
            read_yaml(endless)


def test_aliases_are_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text("a: &a {b: [1, true, null, 0.5]}\nc: *a\nd: {<<: *a, e: x}\n", encoding="utf-8")
    values = {"b": [1, True, None, 0.5]}
    assert read_yaml(path) == {"a": values, "c": values, "d": {**values, "e": "x"}}
