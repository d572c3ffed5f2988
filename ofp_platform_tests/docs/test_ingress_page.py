"""The commands of docs/ingress.md, in a home that nobody used before, and its lists against the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from ofp_platform.cli.environment import Environment
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason
from ofp_platform_tests.cli.program import call, jsonl

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ingress.md"


def test_the_commands_run_as_written(dsn: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    variables = {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn}
    pins = Environment(profile="demo").load_profile().context_pins.wire()
    head = {"event_type": "card_payment", "schema_version": "v1", "ts_utc": "2026-02-05T00:00:05Z", **pins}
    payload = {"account_id": "a", "card_id": "c", "customer_id": "u", "device_id": "d", "merchant_id": "m", "amount_minor": 5}
    first = {**head, "event_id": "1", "payload": payload}
    second = {**head, "event_id": "1", "payload": {**payload, "amount_minor": 6}}
    jsonl(tmp_path / "events.jsonl", first, second)
    text, over_http = PAGE.read_text(encoding="utf-8").split("## Over HTTP")  # the client's test runs that part
    commands = re.findall(r"^\$ (ofp .+)$", text, re.MULTILINE)
    assert len(commands) == 13
    outputs: dict[str, str] = {}
    assert "$ ofp ingress serve" in over_http
    for command in commands:
        outcome = call(*shlex.split(command)[1:], **variables)
        sets_aside = command.startswith("ofp ingress admit")
        assert outcome.code == (1 if sets_aside else 0), outcome
        outputs[command] = outcome.out
    assert "balances to the unit" in outputs["ofp ingress reconcile"]
    assert "0 admitted, 0 released" in outputs["ofp ingress settle"]


def test_outcomes_and_reasons_are_those_of_the_program() -> None:
    named = set(re.findall(r"`([A-Z_]{4,})`", PAGE.read_text(encoding="utf-8"))) - {
        "POST",
        "PUBLISH_IN_FLIGHT",
        "PUBLISH_AMBIGUOUS",
        "DECISION_PENDING",
    }
    assert named == {*AdmissionOutcome, *QuarantineReason}
