from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ofp_platform.kernel.native as native_module
from ofp_platform.kernel.window_loops import answer

ROOT = Path(native_module.__file__).parents[2]


def test_compiled_code_is_stamped_with_the_whole_package() -> None:
    stamp = answer._cache._cache_file._source_stamp  # type: ignore[attr-defined]
    assert stamp[1] == native_module._package_digest()
    assert answer.signatures  # type: ignore[attr-defined]


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
