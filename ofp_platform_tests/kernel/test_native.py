from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

import ofp_platform.kernel.native as native_module
from ofp_platform.kernel.window_loops import answer

ROOT = Path(native_module.__file__).parents[2]


def test_the_private_parts_of_numba_are_there() -> None:
    """native.py adds to the stamp of a kept function, for which numba has no public way."""
    dispatcher = numba.njit(lambda number: number)
    dispatcher.enable_caching()
    holder: Any = dispatcher
    for name in ("_cache", "_cache_file", "_source_stamp"):
        assert hasattr(holder, name), (
            f"numba {numba.__version__} has no {type(holder).__name__}.{name}: kernel/native.py stamps compiled code by it."
            " Find the new place and raise the upper bound of numba in pyproject.toml only then"
        )
        holder = getattr(holder, name)
    assert hasattr(caching.CacheImpl, "_locator_classes"), "this file takes the folders for compiled code away by it"


def test_compiled_code_is_stamped_with_the_whole_package_and_its_constants() -> None:
    stamp = answer._cache._cache_file._source_stamp  # type: ignore[attr-defined]
    assert stamp[1] == native_module._source_digest()
    assert answer.signatures  # type: ignore[attr-defined]


def test_every_constant_from_outside_comes_from_a_stamped_module() -> None:
    """A number that a kernel module imports may be compiled into a loop; an edit of it must recompile the loop."""
    package = ROOT / "ofp_platform"
    sources = set()
    for path in (package / "kernel").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("ofp_platform.kernel"):
                module = importlib.import_module(node.module)
                if any(isinstance(getattr(module, name.name, None), (int, float)) for name in node.names):
                    sources.add(node.module)
    stamped = {"ofp_platform." + name.removesuffix(".py").replace("/", ".") for name in native_module.CONSTANTS_FROM}
    # the parts of an accumulator are flags of a class: sliding makes numbers of them
    assert stamped == sources | {"ofp_platform.registry.aggregations"}


def test_it_runs_where_no_folder_can_be_written(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from ofp_platform.kernel.native import INTEGER, native\n"
        "@native(INTEGER(INTEGER))\n"
        "def double(value):\n"
        "    return 2 * value\n"
        "assert double(21) == 42\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(program)], check=True, env=environment, timeout=120)
