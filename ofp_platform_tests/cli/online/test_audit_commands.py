"""`ofp audit`: keys, appends, verification and proofs as a person calls them, and the stand-alone verifier on what they write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.log.governance_log import append_facts
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.audit.conftest import fact
from ofp_platform_tests.audit.test_verify_proof import PROGRAM
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import Ofp, call


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "audit.key"
    assert call("audit", "key", "new", str(path)).code == 0
    return path


@pytest.fixture(scope="module")
def decided(offline: OfflinePlane, key_file: Path) -> str:
    """The id of a decision that is a leaf under a signed head, on a plane with labels and a decision whose rule nobody kept."""
    plane = offline.labelled.plane
    project_available(plane.projector(plane.ensure_live()), 1_000, lambda records: None)
    assert offline.ofp("decide", "--count", "30").code in (0, 1)
    appended = offline.ofp("audit", "append", "--key", str(key_file))
    assert appended.code == 0, appended
    with plane.pool.connection() as connection:
        row = connection.execute("SELECT subject FROM ofp.audit_leaf WHERE leaf_kind = 'decision' LIMIT 1").fetchone()
    assert row is not None, appended
    return str(row[0])


def stand_alone(proof: Path, key_id: str) -> tuple[int, str]:
    command = [sys.executable, "-I", "-S", str(PROGRAM), str(proof), "--public-key", key_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def key_id_of(path: Path) -> str:
    from ofp_platform.audit.signing_keys import read_key

    return read_key(path, None).key_id


def test_a_new_key_is_printed_by_its_public_half_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    printed = call("audit", "key", "new", str(path), "--json")
    assert json.loads(printed.out) == {"key_id": key_id_of(path), "file": str(path)}
    assert path.read_text().strip() not in printed.shown
    assert "never written over" in call("audit", "key", "new", str(path)).refused()


def test_it_goes_on_appending_until_it_is_stopped(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    variables = {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn}
    path = tmp_path / "audit.key"
    assert call("audit", "key", "new", str(path)).code == 0
    command = ofp_command("audit", "append", "--key", str(path), "--every", "0.05")
    with Child("the audit log", command, variables, tmp_path / "audit.log") as child, open_pool(dsn, max_size=1) as pool:
        assert child.wait_for_line("appending every ", 60) == "0.05 s"
        append_facts(pool, [fact(1)])
        child.wait_for_line("1 leaves added", 60)
        append_facts(pool, [fact(2), fact(3)])
        child.wait_for_line("2 leaves added", 60)
    assert "stopped" in child.text()
    verified = call("audit", "verify", "--public-key", key_id_of(path), **variables)
    assert (verified.code, verified.out.splitlines()[-1]) == (0, "VERIFIED"), verified


def test_what_goes_on_prints_no_json(offline: OfflinePlane, key_file: Path) -> None:
    assert (
        "leave it out, or --every" in offline.ofp("audit", "append", "--key", str(key_file), "--every", "1", "--json").refused()
    )


def test_a_decision_is_proven_to_whoever_has_the_file_and_the_key(
    offline: OfflinePlane, decided: str, key_file: Path, tmp_path: Path
) -> None:
    out, key_id = tmp_path / "proof.json", key_id_of(key_file)
    proven = offline.ofp("audit", "prove", decided, "--out", str(out), "--with-payload")
    assert proven.code == 0, proven
    assert f"wrote {out}" in proven.out
    assert out.stat().st_size <= 32_768
    code, said = stand_alone(out, key_id)
    assert (code, said.splitlines()[-1]) == (0, "PROVEN"), said
    assert "computed from its text" in said
    proof = json.loads(out.read_text())
    assert len(proof["events"]) > 0
    assert "ok     events: " in said
    without = offline.ofp("audit", "prove", decided, "--no-events", "--json")
    (tmp_path / "small.json").write_text(without.out)
    code, said = stand_alone(tmp_path / "small.json", key_id)
    assert (code, "as stated: its text is not in the proof" in said) == (0, True)
    (tmp_path / "small.json").write_text(without.out.replace(proof["origin_event"]["payload_hash"][:8], "00000000"))
    assert stand_alone(tmp_path / "small.json", "0" * 64)[0] == 1


def prove_label_and_dataset(offline: OfflinePlane, key_file: Path, tmp_path: Path) -> None:
    dataset = offline.built().partition(":")[2]
    assert offline.ofp("audit", "append", "--key", str(key_file)).code == 0
    with offline.labelled.plane.pool.connection() as connection:
        row = connection.execute("SELECT assertion_id FROM ofp.label_assertion LIMIT 1").fetchone()
    assert row is not None
    for number, identifier in enumerate((dataset, row[0])):
        out = tmp_path / f"{number}.json"
        assert offline.ofp("audit", "prove", identifier, "--out", str(out)).code == 0
        assert stand_alone(out, key_id_of(key_file))[0] == 0
    assert "is a leaf of the audit log: write its whole id" in offline.ofp("audit", "prove", "f" * 64).refused()
    assert offline.ofp("audit", "prove", "").refused().startswith("name a record: a decision, ")
    assert "cannot be written to" in offline.ofp("audit", "prove", dataset, "--out", str(tmp_path / "none" / "x")).refused()


def test_the_log_proves_other_records_and_is_verified_witnessed_and_handed_on(
    offline: OfflinePlane, decided: str, key_file: Path, tmp_path: Path
) -> None:
    key_id, key = key_id_of(key_file), ("--key", str(key_file))
    prove_label_and_dataset(offline, key_file, tmp_path)
    verified = offline.ofp("audit", "verify", "--public-key", key_id)
    assert (verified.code, verified.out.splitlines()[-1]) == (0, "VERIFIED"), verified
    assert "in quarantine  decision" in verified.out  # the rule of one decision is not kept
    believed = offline.ofp("audit", "verify")
    assert "Compare log and key with what you were given elsewhere" in believed.out
    witness = tmp_path / "witness.key"
    call("audit", "key", "new", str(witness))
    assert offline.ofp("audit", "cosign", "--key", str(witness)).code == 0
    told = json.loads(offline.ofp("audit", "verify", "--json").out)
    assert (told["faults"], told["co_signed_by"]) == ([], [key_id_of(witness)])
    assert told["proven_leaves"] == told["leaves"] > 10
    wrong = offline.ofp("audit", "verify", "--public-key", key_id_of(witness))
    assert (wrong.code, "HEAD_OF_ANOTHER_LOG" in wrong.out) == (1, True)
    assert wrong.out.splitlines()[-1].endswith("faults")
    assert offline.ofp("audit", "verify", "--public-key", key_id_of(witness), "--json").code == 1
    assert "64 hex digits" in offline.ofp("audit", "verify", "--public-key", "x").refused()
    next_key = tmp_path / "next.key"
    next_id = call("audit", "key", "new", str(next_key)).out.strip()
    rotated = offline.ofp("audit", "key", "rotate", next_id, "--reason", "yearly", *key)
    assert (rotated.code, next_id in rotated.out) == (0, True)
    out = tmp_path / "after.json"
    assert offline.ofp("audit", "prove", decided, "--out", str(out)).code == 0
    assert stand_alone(out, key_id)[0] == 0
    assert offline.ofp("audit", "verify", "--public-key", key_id).code == 0
    facts = offline.ofp("governance", "list", "--fact", "audit_key_rotated")
    assert f"{key_id[:12]} -> {next_id[:12]}" in facts.out
    # the log is the next key's now
    assert offline.ofp("audit", "append", "--key", str(next_key)).code == 0
    assert key_file.exists()


def test_without_a_key_or_a_head_it_says_what_to_do(ofp: Ofp, dsn: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        return ofp(*arguments, OFP_DATABASE_URL=dsn).refused()

    assert "`ofp audit key new FILE` makes one" in run("audit", "append")
    assert "OFP_AUDIT_KEY holds no key" in ofp("audit", "append", OFP_DATABASE_URL=dsn, OFP_AUDIT_KEY="x").refused()
    told = ofp("audit", "verify", OFP_DATABASE_URL=dsn)
    assert (told.code, "NO_HEAD" in told.out) == (1, True)
