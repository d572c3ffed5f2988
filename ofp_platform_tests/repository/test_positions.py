"""How a log numbers its records is decided in one place: nothing else asks for the kind of an offset, or makes up a token."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("ofp_platform/vocabulary/position.py")
DECISION = re.compile(
    r"EXCLUSIVE_NEXT|AFTER_SEQUENCE_NUMBER"  # the kind itself: ask for a property of it instead
    r"|isinstance\([a-z_.]*(offset|start|next)"  # the same question, asked of an offset
    r'|\b0 if .+ else ""|"" if .+ else 0\b'  # the token of the start
)
ALLOWED = {
    HOME: "the home of the algebra",
    Path("ofp_platform/log/kinesis_shards.py"): "a word of Kinesis itself: the type of an iterator",
}


def decisions(root: Path) -> dict[Path, list[str]]:
    """Per module that decides by the kind of an offset, the lines that do."""
    modules = sorted(path for folder in ("ofp_platform", "benchmarks") for path in (root / folder).rglob("*.py"))
    assert modules, f"no module below {root}"
    lines = {path.relative_to(root): path.read_text(encoding="utf-8").splitlines() for path in modules}
    hits = {path: [line.strip() for line in text if DECISION.search(line)] for path, text in lines.items()}
    return {path: text for path, text in hits.items() if text}


def test_only_the_algebra_decides_by_the_kind_of_an_offset() -> None:
    hits = decisions(ROOT)
    assert {path: text for path, text in hits.items() if path not in ALLOWED} == {}
    assert hits.keys() == ALLOWED.keys(), "an allowance that is not needed any more"


@pytest.mark.parametrize(
    "line",
    [
        "dense = log.position_kind.offset_kind is OffsetKind.EXCLUSIVE_NEXT",
        "if kind is OffsetKind.AFTER_SEQUENCE_NUMBER:",
        "if isinstance(part.offset, int):",
        "if isinstance(span.start, int) and span.is_empty:",
        'start: int | str = 0 if dense else ""',
        'start = "" if sparse else 0',
    ],
)
def test_a_decision_elsewhere_is_seen(tmp_path: Path, line: str) -> None:
    module = tmp_path / "ofp_platform" / "module.py"
    module.parent.mkdir()
    module.write_text(f"first = 1\n{line}\n", encoding="utf-8")
    assert decisions(tmp_path) == {Path("ofp_platform/module.py"): [line]}


def test_nothing_to_look_at_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no module"):
        decisions(tmp_path)
