"""Hooks of the documents' site (mkdocs.yml): pages that stand outside docs/, and the decisions in the order of their numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "report-a-fault.md": "SECURITY.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!CHANGELOG|SECURITY)[^)]*\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the decisions into the navigation."""
    folder = Path(config.docs_dir) / "decisions"
    pages = [{_title(path): f"decisions/{path.name}"} for path in sorted(folder.glob("*.md"))]
    nav: list[Any] = config.nav or []
    config.nav = [*nav, {"Decisions": pages}, {"Changes": "changelog.md"}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand in the root."""
    for name, source in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links within the site; one to a file that is in the repository alone is its words."""
    depth = "../" if "/" in page.file.src_uri else ""
    if page.file.src_uri in OUTSIDE:
        markdown = markdown.replace("](docs/", "](")
        markdown = re.sub(r"\]\((CHANGELOG|SECURITY)\.md", lambda match: f"]({_renamed(match[1])}", markdown)
        markdown = _LINK.sub(lambda match: match[0] if _is_of_the_site(match[2]) else match[1], markdown)
    markdown = re.sub(r"\]\((?:\.\./)+(CHANGELOG|SECURITY)\.md", lambda match: f"]({depth}{_renamed(match[1])}", markdown)
    markdown = markdown.replace("](decisions)", "](decisions/0001-record-format.md)")
    return _ELSEWHERE.sub(lambda match: match[0] if match[0].endswith(".md)") or ".md#" in match[0] else match[1], markdown)


def _is_of_the_site(target: str) -> bool:
    path = target.partition("#")[0]
    return not path or "://" in path or path in OUTSIDE or (ROOT / "docs" / path).is_file()


def _renamed(name: str) -> str:
    return next(page for page, source in OUTSIDE.items() if source == f"{name}.md")


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
