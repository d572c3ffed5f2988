"""`ofp action`: what it says where nothing can be wanted. docs/actions.md has the rest."""

from __future__ import annotations

from pathlib import Path

from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import write_profile


def test_a_profile_without_a_stream_of_decisions_is_told_from_one_where_nothing_was_wanted(dsn: str, tmp_path: Path) -> None:
    def listed(**streams: str) -> str:
        return call("action", "list", OFP_DATABASE_URL=dsn, OFP_PROFILE=str(write_profile(tmp_path, **streams))).out

    assert listed() == "the profile names no decisions_stream: nothing can be wanted\n"
    assert listed(control_stream="control", decisions_stream="decisions") == "nothing was wanted\n"
