"""The documents: links lead somewhere, lists are complete, pictures are pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from enum import StrEnum
from pathlib import Path

import pytest

from ofp_platform.log.port import RefusalReason
from ofp_platform.registry.aggregations import Aggregation, documentation
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.vocabulary.errors import Reason
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.dataset_admission import AdmissionReason
from ofp_platform.vocabulary.offline.parity_record import UncheckableReason
from ofp_platform.vocabulary.profile import Thresholds
from ofp_platform.vocabulary.serving import PostureState, WarningCode

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CITATION = re.compile(r"semantics(?:\.md)?(?:,? section)? (\d+)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_under(page: str, heading: str) -> str:
    section = text(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("|"))


def first_cells(table: str) -> list[str]:
    return re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("picture", sorted((DOCS / "images").glob("*.svg")), ids=lambda picture: picture.name)
def test_pictures_are_described_and_self_contained(picture: Path) -> None:
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    for name in ("title", "desc"):
        element = root.find(f"{space}{name}")
        assert element is not None
        assert element.text
    content = picture.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in content
    assert not re.search(r"<script|href=\"http|@import|url\(http", content)


def test_every_class_of_a_picture_is_styled_in_both_schemes() -> None:
    content = text("images/way-of-an-event.svg")
    used = {name for names in re.findall(r'class="([^"]+)"', content) for name in names.split()}
    light, dark = content.split("@media", 1)
    assert used <= set(re.findall(r"\.([a-z]+)\b", light))
    assert used - {"middle"} <= set(re.findall(r"\.([a-z]+)\b", dark.split("</style>", 1)[0]))


def test_the_runbook_explains_every_reason_once() -> None:
    assert first_cells(table_under("runbook.md", "Apply failures")) == [reason.value for reason in ApplyFailureReason]
    assert first_cells(table_under("runbook.md", "What the log refuses")) == [reason.value for reason in RefusalReason]
    told = re.findall(r"`([A-Z_]+)`", table_under("runbook.md", "What a caller is told"))
    assert sorted(told) == sorted(reason.value for reason in Reason)


@pytest.mark.parametrize(
    ("heading", "reasons"),
    [
        ("Archive and builds", BuildReason),
        ("Warnings in an answer", WarningCode),
        ("What parity cannot compare", UncheckableReason),
        ("What training does not admit", AdmissionReason),
    ],
)
def test_the_runbook_has_a_cure_for_every_reason_of_a_closed_list(heading: str, reasons: type[StrEnum]) -> None:
    cells = [line.split("|")[1] for line in table_under("runbook.md", heading).splitlines()]
    named = [name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(named) == sorted(reason.value for reason in reasons)


def test_the_runbook_explains_every_reason_of_a_posture() -> None:
    online = ROOT / "ofp_platform" / "online"
    judged = (online / "serving" / "posture.py").read_text(encoding="utf-8")
    watched = (online / "service" / "projection_monitor.py").read_text(encoding="utf-8")
    names = set(re.findall(r'f?"([A-Z]+_[A-Z_]+)(?:[>"])', judged)) | set(re.findall(r'"reasons": \["([A-Z_]+)"\]', watched))
    assert {"STARTING", "STALLED_SECONDS", "HISTORY_LOST", "NO_PROJECTION"} <= names
    missing = [name for name in sorted(names) if f"`{name}`" not in text("runbook.md")]
    assert missing == []


def test_the_runbook_states_the_thresholds_that_are_the_defaults() -> None:
    table = table_under("runbook.md", "Posture")
    defaults = Thresholds()
    assert re.findall(r"^\| ([A-Z]+) \|", table, re.MULTILINE) == [state.value for state in PostureState]
    for state, lag, stall in (
        ("AMBER", defaults.lag_records_amber, defaults.stall_seconds_amber),
        ("RED", defaults.lag_records_red, defaults.stall_seconds_red),
    ):
        row = next(line for line in table.splitlines() if line.startswith(f"| {state} "))
        assert f"more than {lag:,} records" in row
        assert f"more than {stall} s" in row


def test_semantics_names_every_aggregation_and_warning() -> None:
    table = table_under("semantics.md", "3. Windows")
    assert sorted(re.findall(r"`([a-z_]+)`", table)) == sorted(aggregation.value for aggregation in Aggregation)
    assert table.splitlines()[-len(Aggregation) :] == documentation()
    assert all(f"`{code.value}`" in text("semantics.md") for code in WarningCode)


def test_the_sections_of_semantics_are_numbered_and_every_citation_names_one() -> None:
    headings = re.findall(r"^## (.+)$", text("semantics.md"), re.MULTILINE)
    assert [heading.split(". ", 1)[0] for heading in headings] == [str(number) for number in range(1, len(headings) + 1)]
    files = [*ROOT.glob("ofp_platform/**/*.py"), *ROOT.glob("ofp_platform_tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    for file in [*files, *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"), ROOT / "README.md"]:
        for number in CITATION.findall(file.read_text(encoding="utf-8")):
            assert 1 <= int(number) <= len(headings), f"{file.relative_to(ROOT)}: section {number}"


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", text("glossary.md"), re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(set(words))


def test_every_word_of_the_glossary_is_used() -> None:
    def flat(content: str) -> str:
        return re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", content)).lower()

    pages = [page for page in [*PAGES, *DOCS.glob("decisions/*.md")] if page.name != "glossary.md"]
    used = flat("\n".join(file.read_text(encoding="utf-8") for file in [*pages, *ROOT.glob("ofp_platform/**/*.py")]))
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", text("glossary.md"), re.MULTILINE)
    assert [word for word in words if flat(word) not in used] == []
