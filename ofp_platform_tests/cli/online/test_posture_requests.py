"""The posture behind the HTTP service, on a database: in the role of a decider, and refused in words without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ofp_platform.cli.online.posture_requests import PostureRequests
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.posture_looks import note_look
from ofp_platform.storage.roles import EVERY_RUN, Job, register_role
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.posture_policy import PosturePolicy
from ofp_platform_tests.posture.conftest import START, Run, new_run

__all__ = ["new_run"]


def requests_of(run: Run, role: str | None = None) -> PostureRequests:
    dsn = run.plane.dsn if role is None else as_role(run.plane.dsn, role)
    return PostureRequests(run.plane.profile, dsn, lambda: START)


def hold(mode: str, reason: str) -> bytes:
    return orjson.dumps({"mode": mode, "reason": reason})


def view(body: bytes) -> tuple[Any, ...]:
    content = orjson.loads(body)
    return content["in_force"]["mode"], content["in_force"]["sequence"], [change["actor"] for change in content["changes"]]


async def test_a_decider_holds_and_releases(new_run: Callable[..., Run]) -> None:
    run = new_run()
    with run.plane.pool.connection() as connection, connection.transaction():
        register_role(connection, "ofp_decider", Job.DECIDER, [EVERY_RUN])
    requests = requests_of(run, "ofp_decider")
    try:
        assert view(await requests.view()) == ("FAIL_CLOSED", None, [])
        assert view(await requests.hold(hold("HOLD", "stop"), "a")) == ("HOLD", 0, ["a"])
        assert view(await requests.hold(hold("HOLD", "stop"), "b")) == ("HOLD", 0, ["a"])
        assert view(await requests.release(b'{"reason": "over"}', "b")) == ("HOLD", 1, ["b", "a"])
    finally:
        await requests.close()


async def test_the_view_says_whether_anybody_watches(new_run: Callable[..., Run]) -> None:
    async def watched(run: Run) -> object:
        requests = requests_of(run)
        try:
            return orjson.loads(await requests.view())["watched"]
        finally:
            await requests.close()

    assert await watched(new_run()) is None  # the policy has no thresholds
    threshold = {"signal": "lag_records", "at_least": 9, "mode": "REDUCED"}
    run = new_run(posture=PosturePolicy.model_validate({"thresholds": [threshold]}))
    assert await watched(run) == {"is_watched": False, "last_look_ms": None}
    with run.plane.pool.connection() as connection:
        note_look(connection, run.pins)
    seen = await watched(run)
    assert isinstance(seen, dict)
    assert seen["is_watched"], seen
    assert seen["last_look_ms"] >= 0


async def test_what_may_not_be_is_refused_in_words(new_run: Callable[..., Run]) -> None:
    run, without_control = new_run(), new_run(control_stream=None)
    for where, role, body, reason, words in (
        (run, None, hold("HOLD", " "), Reason.INVALID_FIELD, "say why"),
        (run, None, hold("HOLD", "card 4111111111111111"), Reason.INVALID_FIELD, "raw identifier"),
        (run, None, hold("HOLD", "a\0b"), Reason.INVALID_FIELD, r"a text holds U\+0000"),
        (run, None, hold("HOLD", "x" * 401), Reason.INVALID_FIELD, "reason: String should have at most 400 characters"),
        (run, None, b"{", Reason.MALFORMED_JSON, "^the body: not JSON"),
        (run, None, b'{"mode": 1, "mode": 2}', Reason.MALFORMED_JSON, "^the body: the name mode stands twice in one object"),
        (run, "ofp_serving", hold("HOLD", "x"), Reason.FORBIDDEN, "OFP_DECIDER_DATABASE_URL"),
        (without_control, None, hold("HOLD", "x"), Reason.INVALID_FIELD, "names no control_stream"),
    ):
        requests = requests_of(where, role)
        try:
            with pytest.raises(ContractError, match=words) as refused:
                await requests.hold(body, "a")
            assert refused.value.reason is reason
            if role is None:
                assert view(await requests.view()) == ("FAIL_CLOSED", None, [])
        finally:
            await requests.close()
    requests = requests_of(run)
    with pytest.raises(ContractError, match="nothing to release"):
        await requests.release(b'{"reason": "over"}', "a")
    await requests.close()


async def test_a_database_that_does_not_answer_is_told(new_run: Callable[..., Run]) -> None:
    requests = PostureRequests(new_run().plane.profile, "postgresql://nobody@127.0.0.1:1/nowhere", lambda: START)
    with pytest.raises(ContractError, match="does not answer") as refused:
        await requests.hold(hold("HOLD", "x"), "a")
    assert refused.value.reason is Reason.STORE_DOWN
    await requests.close()
