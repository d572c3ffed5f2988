from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import caching

import ofp_platform.kernel.native as native_module
from ofp_platform.kernel.native import IN1, INTEGER, NOTHING, OUT1, Int64Array, native
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


def test_a_loop_is_loaded_when_it_is_first_called_and_takes_its_signature_alone() -> None:
    @native(OUT1(IN1, INTEGER))
    def times(values: Int64Array, factor: int) -> Int64Array:
        return values * factor

    dispatcher: Any = times
    assert dispatcher.signatures == []
    with pytest.raises(TypeError, match=r"times takes .*, not .*Array.*float64"):
        times(np.ones(3), 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError):  # from here on they are numba's own words
        times(np.ones((3, 3), np.int64), 2)
    fixed = np.arange(3)
    fixed.flags.writeable = False
    with ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(lambda factor: times(fixed, factor).tolist(), range(64)))
    assert calls == [[0, factor, 2 * factor] for factor in range(64)]
    assert times(np.arange(3), 5).tolist() == [0, 5, 10]
    assert len(dispatcher.signatures) == 1
    with pytest.raises(TypeError):
        times(np.ones(3), 2)  # type: ignore[arg-type]


def test_a_loop_that_writes_takes_no_array_that_may_not_be_written() -> None:
    @native(NOTHING(OUT1))
    def clear(values: Int64Array) -> None:
        values[:] = 0

    fixed = np.arange(3)
    fixed.flags.writeable = False
    for _ in range(2):  # the first call loads
        with pytest.raises(TypeError):
            clear(fixed)
    assert fixed.tolist() == [0, 1, 2]


def test_a_loop_that_is_called_by_another_is_loaded_with_it() -> None:
    @native(INTEGER(INTEGER))
    def double(value: int) -> int:
        return 2 * value

    @native(INTEGER(INTEGER))
    def fourfold(value: int) -> int:
        return double(double(value))

    assert fourfold(3) == 12
    assert double(4) == 8
    assert len(double.signatures) == len(fourfold.signatures) == 1  # type: ignore[attr-defined]


def test_every_loop_that_was_declared_can_be_loaded_at_once() -> None:
    @native(INTEGER(INTEGER))
    def double(value: int) -> int:
        return 2 * value

    for path in (ROOT / "ofp_platform" / "kernel").glob("*.py"):
        importlib.import_module(f"ofp_platform.kernel.{path.stem}")
    native_module.load_loops()
    assert native_module._declared == []
    assert double.signatures
    assert answer.signatures


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
