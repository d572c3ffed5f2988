"""Drills of the kill switch: behind the commit of a kill no row under the former mode, and each decider says so in a second."""

from __future__ import annotations

from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.posture_drills.drills import BREAKING, PARTED, WELL, drill
from ofp_platform_tests.torture.suite import Run, Suite

DRILLS, CONTROLS = 1_000, 60
AIM_SECONDS = 1.0


def torture(run: Run) -> None:
    """See the rows."""
    drills = run.count(DRILLS, 6)
    for name in ("held", "control"):
        (run.folder / name).mkdir()
    with own_database(run.dsn) as dsn:
        findings = drill(dsn, run.folder / "held", drills, run.seed, holds=True)
    with own_database(run.dsn) as dsn:
        control = drill(dsn, run.folder / "control", run.count(CONTROLS, 9), run.seed, holds=False)
    for kind in (PARTED, BREAKING, WELL):
        count = findings.drills[kind]
        run.fact(f"kills while the network was {kind}", f"{count:,}", aim="> 0", reached=count > 0)
    done = ", ".join(f"{fault} {count:,}" for fault, count in sorted(findings.faults.items()))
    run.fact("faults done to pieces of the decider's bytes", done or "none", aim="> 0", reached=findings.faults.total() > 0)
    claim = "behind the commit of a change no row under the former mode"
    run.claim(claim, tried=findings.rows, failed=findings.slipped, aim="0", of="rows")
    run.claim("each kill is proved by a challenge", tried=drills, failed=findings.unproved, aim="0", of="kills")
    of_kill = "from a kill to its commit"
    of_answer = "from a kill, or the end of the fault if later, to the first answer under the new mode"
    for what, times in ((of_kill, findings.committed), (of_answer, findings.answered)):
        greatest = p99(times)
        run.fact(
            f"p99 {what}", f"{greatest:.3f} s of {len(times):,}", aim=f"<= {AIM_SECONDS:g} s", reached=greatest <= AIM_SECONDS
        )
    slipped = f"{control.slipped:,} of {control.rows:,} rows"
    run.fact("control: without the lock rows slip through, and are found", slipped, aim="> 0", reached=control.slipped > 0)
    run.raw["seconds_to_commit"], run.raw["seconds_to_answer"] = findings.committed, findings.answered


def p99(times: list[float]) -> float:
    """The time that 99 of 100 do not pass, in seconds."""
    return sorted(times)[-(-99 * len(times) // 100) - 1]


SUITE = Suite("posture_drills", "Kill switch: drills over a network that is parted, breaks connections, or is well", torture)
