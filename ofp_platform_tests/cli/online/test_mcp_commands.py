"""`ofp mcp serve`, by the SDK's own client over stdin and stdout, against a service on a socket."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from ofp_platform.api.build_examples import intent_example, run_example
from ofp_platform.api.examples import decision_example
from ofp_platform.cli.processes import ofp_command
from ofp_platform.client import OfpClient
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform_tests.api.fake_port import HASH
from ofp_platform_tests.api.keys import KEY, principal, write_principals
from ofp_platform_tests.api.test_server import running

READS = {
    "health", "catalogue", "show_group", "show_snapshot", "explain_value", "list_events_behind", "show_decision",
    "compare_packs", "estimate_build", "show_build",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a service, and the keys of who may do everything, and who may ask for features only."""
    asking, asker = principal("asker", ["features:read"])
    principals = write_principals(tmp_path_factory.mktemp("mcp") / "principals.json", asker)
    with running(OFP_PRINCIPALS=str(principals)) as (_, address):
        yield address, {"all": KEY, "features": asking}


@asynccontextmanager
async def tools(address: str, token: str) -> AsyncIterator[ClientSession]:
    command = ofp_command("mcp", "serve", "--url", address)
    environ = {"OFP_API_TOKEN": token, "PYTHONPATH": str(Path(__file__).parents[3]), "PATH": os.environ["PATH"]}
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=environ)
    async with stdio_client(parameters) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Whether it is an error, and its text."""
    result = await session.call_tool(tool, arguments)
    return bool(result.is_error), "".join(getattr(part, "text", "") for part in result.content)


async def test_tools_read_what_the_key_may_read(service: tuple[str, dict[str, str]]) -> None:
    address, keys = service
    async with tools(address, keys["all"]) as session:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert listed.keys() == READS
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in listed.values())
        assert all(tool.description for tool in listed.values())
        assert json.loads((await call(session, "health"))[1])["state"] == "AMBER"
        groups = json.loads((await call(session, "catalogue", search="MEAN"))[1])["groups"]
        assert [group["group"] for group in groups] == ["account_amount:v1"]
        assert json.loads((await call(session, "catalogue", search="nothing such"))[1])["groups"] == []
        shown = json.loads((await call(session, "show_group", group="account_amount:v1"))[1])
        assert shown["owner"] == "team:fraud-platform"
        assert json.loads((await call(session, "show_snapshot", snapshot_hash=HASH))[1])["feature_snapshot_hash"] == HASH
        explained = json.loads(
            (await call(session, "explain_value", snapshot_hash=HASH, feature="mean_amount_30d", group="account_amount:v1"))[1]
        )
        assert (explained["value"], explained["definition"]) == ("4355.000000", "mean of amount_minor over card_payment in 30d")
        assert explained["windows"][0]["until"] == explained["as_of_time_utc"]
        behind = json.loads(
            (await call(session, "list_events_behind", snapshot_hash=HASH, feature="mean_amount_30d", key="account:a"))[1]
        )
        assert [event["event_id"] for event in behind["windows"][0]["events"]]
        decision = decision_example()
        with OfpClient(address, token=keys["all"], timeout_seconds=10) as client:
            client.record_decision(DecisionRecord.model_validate(decision))
        shown = json.loads((await call(session, "show_decision", decision_id=decision["decision_id"]))[1])
        assert shown == decision
        absent = await call(session, "show_decision", decision_id=decision["decision_id"][::-1])
        assert (absent[0], "UNKNOWN_DECISION" in absent[1]) == (True, True)
        several = await call(session, "explain_value", snapshot_hash=HASH, feature="mean_amount_30d")
        assert several[0]
        assert "several values are meant" in several[1]
        same = json.loads((await call(session, "compare_packs", old="handbook", new="handbook"))[1])
        assert same == {"lines": [], "publishable": True}
        wrong = await call(session, "compare_packs", old="/etc/passwd", new="handbook")
        assert wrong[0]
        assert "root:" not in wrong[1]
        estimated = json.loads((await call(session, "estimate_build", intent=intent_example()))[1])
        assert estimated["run_key"] == run_example()["run_key"]
        contradicting = await call(session, "estimate_build", intent=intent_example() | {"label": None})
        assert (contradicting[0], "LABEL_ASOF_MISSING" in contradicting[1]) == (True, True)


async def test_tools_say_no_more_than_the_scopes_of_the_key(service: tuple[str, dict[str, str]]) -> None:
    address, keys = service
    async with tools(address, keys["features"]) as session:
        assert not (await call(session, "catalogue"))[0]
        for tool, arguments in (
            ("show_snapshot", {"snapshot_hash": HASH}),
            ("explain_value", {"snapshot_hash": HASH, "feature": "mean_amount_30d"}),
            ("list_events_behind", {"snapshot_hash": HASH, "feature": "mean_amount_30d"}),
            ("show_decision", {"decision_id": "any"}),
            ("estimate_build", {"intent": intent_example()}),
            ("show_build", {"run_key": run_example()["run_key"]}),
        ):
            is_error, text = await call(session, tool, **arguments)
            assert (is_error, "FORBIDDEN" in text, "4355" in text) == (True, True, False), tool
    async with tools(address, "ofp_nobody") as session:
        assert "UNAUTHENTICATED" in (await call(session, "catalogue"))[1]


async def test_a_service_that_is_not_there_is_told_in_words() -> None:
    async with tools("http://127.0.0.1:1", "ofp_nobody") as session:
        is_error, text = await call(session, "health")
    assert (is_error, "127.0.0.1:1 does not answer" in text) == (True, True)


def test_nothing_but_the_protocol_is_written_to_stdout() -> None:
    outcome = subprocess.run(ofp_command("mcp", "serve"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, b"")
