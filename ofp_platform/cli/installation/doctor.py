"""`ofp doctor`: what is wrong with an installation, in words, and what to do about it."""

from __future__ import annotations

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts


def doctor(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Look at everything that the plane needs and say what is wrong, in words; exit code 1 if something is.

    The embedded PostgreSQL is started for it, if that is the database; nothing else is.
    """
    from ofp_platform.cli.installation.checks import State, examine

    marks = {State.WELL: "ok   ", State.NOTE: "note ", State.WRONG: "WRONG"}
    findings = examine(resolve(home, profile))
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.subject}: {finding.result}")
        if finding.advice:
            lines.append(f"      -> {finding.advice}")
    wrong = sum(finding.state is State.WRONG for finding in findings)
    lines.append("nothing is wrong" if not wrong else f"{wrong} of {len(findings)} checks found something wrong")
    print_facts(findings, lines, as_json=json)
    if wrong:
        raise typer.Exit(1)
