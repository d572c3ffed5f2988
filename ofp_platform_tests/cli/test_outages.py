"""Every command against what does not answer: the address and the way out in words, no trace, nothing made on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.online.plane import profile_pack
from ofp_platform.registry.pack import pack_digest
from ofp_platform.storage import postgres
from ofp_platform.vocabulary.offline.build_intent import intent_wire
from ofp_platform_tests.cli.program import Outcome, call
from ofp_platform_tests.cli.terminal.test_printed_facts import COMMANDS
from ofp_platform_tests.oracle.build_plans import dataset_intent

DATASET = "fraud_by_payment:" + "0" * 64
DIGEST = "0" * 64
QUESTION = "--key account:a --group account_activity:v1 --as-of 2026-02-05T00:00:00Z"
ARGUMENTS = {
    "action list": "",
    "action request": "hold_account account:a --reference ticket-1 --reason why",
    "action run": "--once",
    "action settle": "{digest} --done --reason why",
    "action show": "{digest}",
    "access list": "",
    "apply": "card_payments --plan {digest} --reason why",
    "archive keep": "",
    "archive list": "",
    "archive restore": "",
    "archive run": "",
    "archive verify": "",
    "audit append": "",
    "audit cosign": "",
    "audit key new": "{folder}/audit.key",
    "audit key rotate": "{digest} --reason why",
    "audit prove": "{digest}",
    "audit verify": "",
    "backup": "{folder}/backup",
    "build prune": "",
    "build run": "{digest}",
    "bundle activate": "card_payments --actor a --reason why",
    "bundle approve": "card_payments --actor a --reason why",
    "bundle export": "card_payments --openlineage {folder}/lineage.ndjson",
    "bundle list": "",
    "bundle publish": "card_payments --actor a --reason why",
    "bundle resolve": "",
    "bundle retire": "card_payments --actor a --reason why",
    "bundle rollback": "card_payments --actor a --reason why",
    "bundle show": "card_payments",
    "case act": "{digest} --action hold --target account:a --reason why",
    "case assert": "{digest} fraud",
    "case close": "{digest} --reason why",
    "case collect": "",
    "case list": "",
    "case note": "{digest} --text why",
    "case reopen": "{digest} --reason why",
    "case settle": "",
    "case show": "{digest}",
    "case trigger": "e-1 --class card_payment --reason why",
    "catalog list": "",
    "catalog show": "account_activity:v1",
    "database register": "somebody serving",
    "database roles": "",
    "database sql": "",
    "dataset diff": "{dataset} {dataset}",
    "dataset export": "{dataset} --openlineage {folder}/lineage.ndjson",
    "dataset from-entities": "{folder}/rows.csv --name rows --key account=account --time when --group account_activity:v1",
    "dataset list": "",
    "dataset load": "{dataset}",
    "dataset show": "{dataset}",
    "dataset verify": "{dataset}",
    "decide": "",
    "decider run": "--once --token x",
    "decider show": "",
    "decision replay": "",
    "decision show": "{digest}",
    "decision whatif": "--mode HOLD",
    "demo": "",
    "doctor": "",
    "facts publish": "",
    "facts show": "",
    "features get": "{question}",
    "governance list": "",
    "governance reconcile": "",
    "id adjudicate": "card_payment mine --counts 0000/1 --reason why",
    "id list": "",
    "ingress admit": "{folder}/events.jsonl",
    "ingress class-map": "",
    "ingress receipts": "",
    "ingress archive": "",
    "ingress reconcile": "",
    "ingress settle": "",
    "ingress serve": "--port 0",
    "init": "",
    "intent cancel": "{digest}",
    "identity catch-up": "",
    "identity mint": "device email token-1",
    "identity show": "account:account-0000001",
    "identity status": "",
    "intent check": "{folder}/intent.json",
    "intent list": "",
    "intent new": "rows",
    "intent retry": "{digest}",
    "intent show": "{digest}",
    "intent submit": "{folder}/intent.json",
    "intent wait": "{digest} --timeout 0",
    "labels append": "{folder}/rows.csv --rules {folder}/import.yaml",
    "labels load": "",
    "labels show": "",
    "log accept": "0000 --reason why",
    "log append": "{folder}/events.jsonl",
    "log ends": "",
    "log import": "{folder}/rows.csv --rules {folder}/import.yaml",
    "log show": "0000:1",
    "log trim": "--archived",
    "mcp serve": "--token none",
    "migrate": "",
    "model retrain": "{dataset} --actor me",
    "model train": "{dataset}",
    "pack from-feast": "{folder}/feast.json",
    "pack infer": "{folder}/rows.csv --key account=key --time when --id id",
    "parity corrections": "",
    "parity run": "",
    "parity show": "",
    "plan": "card_payments",
    "posture challenge": "",
    "posture hold": "HOLD --reason why",
    "posture release": "--reason why",
    "posture show": "",
    "posture watch": "--once",
    "principal add": "somebody --scope metrics",
    "principal distrust": "provider",
    "principal issuers": "",
    "principal list": "",
    "principal revoke": "somebody",
    "principal rotate": "somebody",
    "principal trust": "{folder}/issuer.json",
    "profile diff": "demo handbook",
    "profile show": "",
    "projection list": "",
    "projection rebuild": "",
    "projection reshard": "1 2",
    "projection retire": "1",
    "projection switch": "{pack}",
    "projector anomalies": "",
    "projector catch-up": "",
    "projector failures": "",
    "projector run": "",
    "projector status": "",
    "quarantine list": "",
    "quarantine replay": "1 --reason why",
    "quarantine show": "1",
    "registry check": "card_payments --store",
    "registry diff": "card_payments handbook",
    "registry show": "",
    "restore": "{folder}/backup",
    "retention": "",
    "rollback": "--reason why",
    "run cancel": "--reason why",
    "run end": "--reason why",
    "run list": "",
    "run request": "w",
    "run show": "",
    "run work": "",
    "serve": "--port 0",
    "services down": "",
    "services run": "ofp doctor",
    "services up": "",
    "snapshot explain": "{digest} --feature count_1h",
    "snapshot rebuild": "{digest}",
    "snapshot reindex": "",
    "snapshot show": "{digest}",
    "up": "--port 0 --no-dagster",
    "world list": "",
    "world make": "w --rings",
    "world seal": "w",
    "world show": "w",
    "world stream": "w",
    "world verify": "w",
}
"""What each command is given: enough to come as far as its first server."""
NEED_NO_DATABASE = {
    "access list": "reads files of the home",
    "audit key new": "writes a file",
    "backup": "is of the embedded server: another has means of its own",
    "database sql": "prints SQL",
    "dataset diff": "reads the object store alone",
    "dataset load": "reads the object store alone",
    "dataset show": "reads the object store alone",
    "dataset verify": "reads the object store alone",
    "identity mint": "computes an id",
    "ingress class-map": "reads a pack, or a file",
    "init": "writes files",
    "mcp serve": "asks the HTTP service",
    "model train": "reads the object store alone",
    "pack from-feast": "reads a file",
    "pack infer": "reads a file",
    "principal add": "writes a file of the home",
    "principal distrust": "writes a file of the home",
    "principal issuers": "reads a file of the home",
    "principal list": "reads a file of the home",
    "principal revoke": "writes a file of the home",
    "principal rotate": "writes a file of the home",
    "principal trust": "writes a file of the home",
    "profile diff": "reads profiles",
    "profile show": "reads a profile",
    "registry diff": "reads packs",
    "registry show": "reads a pack",
    "restore": "is of the embedded server: another has means of its own",
    "services down": "is of servers of the home",
    "services run": "becomes another command",
    "services up": "starts servers",
    "world list": "reads the object store alone",
    "world make": "writes the object store alone",
    "world seal": "writes the object store alone",
    "world show": "reads the object store alone",
    "world verify": "reads the object store alone",
}
MAKE_A_HOME = {"demo", "init", "principal add", "principal trust", "restore", "services up", "up"}
NEED_NO_HOME = {
    "audit key new",
    "identity mint",
    "ingress class-map",
    "database sql",
    "mcp serve",
    "pack from-feast",
    "pack infer",
    "profile diff",
    "profile show",
    "registry diff",
    "registry show",
}
"""They read what ships with the program, or files that they are given, or ask the HTTP service with a key that they are given."""

IMPORT = """\
events:
  event_type: card_payment
  event_id: id
  time: {column: when}
  fields:
    account_id: {column: account, type: key}
labels:
  event_type: card_payment
  event_id: id
  label_type: fraud
  value: 1
  observed: {column: when}
  source: somebody
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that commands are given."""
    given = tmp_path / "given"
    given.mkdir()
    for name, text in {
        "events.jsonl": "{}\n",
        "feast.json": "{}",
        "import.yaml": IMPORT,
        "intent.json": json.dumps(intent_wire(dataset_intent())),
        "rows.csv": "id,account,when\n1,a,2026-02-05T00:00:00Z\n",
    }.items():
        (given / name).write_text(text, encoding="utf-8")
    return given


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a principal, as `ofp serve` needs one."""
    assert call("principal", "add", "somebody", "--scope", "metrics", "--home", str(tmp_path / "home")).code == 0
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pool that does not wait ten seconds for a server, and the signals as they were: `ofp up` takes them."""
    assert postgres.open_pool.__kwdefaults__["timeout_seconds"] == 10.0
    monkeypatch.setitem(postgres.open_pool.__kwdefaults__, "timeout_seconds", 0.05)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


IMPATIENT = (
    "from ofp_platform.storage import postgres; postgres.open_pool.__kwdefaults__['timeout_seconds'] = 0.05;"
    " from ofp_platform.cli.entry import main; main()"
)


def ofp(name: str, folder: Path, **environ: str) -> Outcome:
    pack = pack_digest(profile_pack(Environment(profile="demo").load_profile()))
    given = ARGUMENTS[name].format(dataset=DATASET, digest=DIGEST, folder=folder, pack=pack, question=QUESTION)
    return call(*name.split(), *given.split(), **environ)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_every_command_is_here() -> None:
    assert set(ARGUMENTS) == set(COMMANDS)
    assert set(NEED_NO_DATABASE) | MAKE_A_HOME | NEED_NO_HOME <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(NEED_NO_DATABASE) - {"serve", "ingress serve"}))
def test_a_database_that_does_not_answer(name: str, home: Path, folder: Path) -> None:
    before = files_in(home)
    said = ofp(name, folder, OFP_HOME=str(home), OFP_DATABASE_URL="postgresql://somebody:secret@127.0.0.1:1/none")
    assert said.code == 1, said
    words = said.out if name == "doctor" else said.refused()
    assert "127.0.0.1" in words, said
    assert "port 1" in words, said
    assert name == "doctor" or "`ofp doctor`" in words, said
    assert "secret" not in said.shown
    assert "error connecting in" not in said.shown  # it is told once, at the end
    assert len(said.err.splitlines()) <= 3, said
    left = files_in(home) - before
    assert left <= ({"up.lock"} if name == "up" else {"objects", "objects/doctor", "objects/doctor/probe"}), left


def test_a_service_whose_database_does_not_answer(home: Path) -> None:
    """As a process of its own: its workers are others."""
    command = [sys.executable, "-c", IMPATIENT, "serve", "--port", "0"]
    variables = {"OFP_HOME": str(home), "OFP_DATABASE_URL": "postgresql://somebody:secret@127.0.0.1:1/none"}
    said = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=120)
    assert said.returncode == 1, said
    assert "port 1, database 'none') does not answer" in said.stderr
    assert "`ofp doctor`" in said.stderr
    assert "Traceback" not in said.stderr
    assert "secret" not in said.stderr


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - MAKE_A_HOME - NEED_NO_HOME))
def test_a_home_that_nobody_made(name: str, tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "typo" / "home"
    said = ofp(name, folder, OFP_HOME=str(missing), OFP_DATABASE_URL="")
    assert said.code == 1, said
    assert str(missing) in said.shown, said
    assert "`ofp init`" in said.shown, said
    assert "Traceback" not in said.shown
    assert not missing.parent.exists()
