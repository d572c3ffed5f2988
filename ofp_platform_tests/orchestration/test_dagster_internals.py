"""Private parts of Dagster: each that is used is there, and named in one module only."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import ofp_platform

PACKAGE = Path(ofp_platform.__file__).parent


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("dagster._core.storage.tags", "ASSET_PARTITION_RANGE_START_TAG", "dagster/asset_partition_range_start"),
        ("dagster._core.storage.tags", "ASSET_PARTITION_RANGE_END_TAG", "dagster/asset_partition_range_end"),
        ("dagster._core.workspace.context", "WorkspaceProcessContext", None),
        ("dagster._core.workspace.load_target", "ModuleTarget", None),
        ("dagster._serdes", "ConfigurableClassData", None),
    ],
)
def test_each_private_part_of_dagster_is_there(module: str, name: str, value: str | None) -> None:
    part = getattr(importlib.import_module(module), name, None)
    assert part is not None, f"this version of Dagster has no {module}.{name}: find its successor for dagster_internals.py"
    if value is not None:
        assert part == value, f"{module}.{name} is {part!r} in this version of Dagster: ranges would no longer be recognised"


def test_private_parts_of_dagster_are_named_in_one_module() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\b(?:from|import) dagster\w*\._", path.read_text(encoding="utf-8"))
    }
    assert users == {"orchestration/dagster_internals.py"}
