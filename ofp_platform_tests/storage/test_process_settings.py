"""How processes of the plane are set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_TOLD = """
import gc, os, sys
{start}
path = sys.argv[1]
open(path, "w").close()
print(gc.get_threshold(), oct(os.stat(path).st_mode & 0o777))
"""
_STARTS = {
    "a process of the plane": "from ofp_platform.storage.process_settings import settle_process; settle_process()",
    "the program ofp": "import ofp_platform.cli.main as m; m.app = lambda: None; from ofp_platform.cli.entry import main; main()",
    "the code location": "import ofp_platform.definitions",
}


@pytest.mark.parametrize("start", _STARTS.values(), ids=_STARTS)
def test_files_are_the_users_own_and_garbage_is_looked_for_rarely(start: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", _TOLD.format(start=start), str(tmp_path / "made")]
    told = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.split() == ["(50000,", "10,", "10)", "0o600"]
