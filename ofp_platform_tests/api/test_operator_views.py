"""Reads for operators: an explanation runs apart, in bounds, and is refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import pytest

from ofp_platform.api.explanation_process import ExplanationTask, explain
from ofp_platform.api.operator_views import MOST_WAITING, OperatorViews
from ofp_platform.cli.environment import Environment
from ofp_platform.client import make_request
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.apply_failures import ApplyFailures
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.explanation import Explanation
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO, fill_demo_plane

KEY, GROUP = f"account:{ACCOUNT}", "account_activity:v1"


@pytest.fixture(scope="module")
def served(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Profile, str, Answer]]:
    """A profile, its database, and an answer that is stored."""
    home = tmp_path_factory.mktemp("views")
    fill_demo_plane(home, module_dsn)
    with Environment(home=home, database_url=module_dsn, profile="demo").open_plane("owner") as plane:
        live = plane.known_live()
        request = make_request(
            context_pins=plane.profile.context_pins,
            feature_keys=[("account", ACCOUNT)],
            feature_groups=[("account_activity", "v1")],
            as_of_time_utc=AFTER_THE_DEMO,
        )
        answer = plane.reader(live).answer(request)
        SnapshotStore(plane.pool, ObjectStore(plane.profile.object_store_url)).materialise([answer])
        yield plane.profile, module_dsn, answer


def task(served: tuple[Profile, str, Answer], **changes: str | None) -> ExplanationTask:
    profile, dsn, answer = served
    given = {"snapshot_hash": answer.hash, "feature": "sum_amount_30d", "key": KEY, "group": GROUP, "dsn": dsn, **changes}
    return ExplanationTask(profile=profile, seconds=60, **given)  # type: ignore[arg-type]


def test_a_value_and_its_events_without_their_content(served: tuple[Profile, str, Answer]) -> None:
    explanation = Explanation.model_validate(explain(task(served))["explanation"])
    (window,) = explanation.windows
    assert (explanation.value, window.aggregation, window.of) == (107016, "sum", "amount_minor")
    assert window.event_count == len(window.events) == 61
    assert [event.event_time_utc for event in window.events] == sorted(event.event_time_utc for event in window.events)
    assert explanation.records_read > 61
    names = set(window.events[0].model_dump())
    assert names == {"partition_id", "offset", "event_id", "event_type", "event_time_utc", "admitted_at_utc", "copies"}


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"feature": "nothing"}, "INVALID_FIELD", "none is meant"),
        ({"key": "account:other"}, "INVALID_FIELD", "none is meant"),
        ({"snapshot_hash": "0" * 64}, "UNKNOWN_SNAPSHOT", ""),
    ],
)
def test_what_cannot_be_explained_is_refused_in_words(
    served: tuple[Profile, str, Answer], changes: dict[str, str], reason: str, words: str
) -> None:
    refused = explain(task(served, **changes))["refused"]
    assert refused[0] == reason
    assert words in refused[1]


async def test_failures_by_pages(served: tuple[Profile, str, Answer]) -> None:
    profile, dsn, _ = served
    views = OperatorViews(profile, dsn)
    page = ApplyFailures.model_validate_json(await views.failures(None, 1, None))
    assert [row.reason for row in page.failures] == ["MISSING_KEY"]
    assert page.failures[0].partial
    behind = await views.failures((page.failures[0].partition_id, page.failures[0].offset), 1, None)
    assert ApplyFailures.model_validate_json(behind).failures == ()
    assert ApplyFailures.model_validate_json(await views.failures(None, 5, "INVALID_FIELD_TYPE")).failures == ()


async def test_it_runs_in_a_process_of_its_own(served: tuple[Profile, str, Answer]) -> None:
    profile, dsn, answer = served
    body = await OperatorViews(profile, dsn).explanation(answer.hash, "count_24h", KEY, GROUP)
    assert orjson.loads(body)["feature"] == "count_24h"


async def test_more_than_a_few_do_not_wait_and_none_lives_longer_than_its_time(served: tuple[Profile, str, Answer]) -> None:
    profile, dsn, answer = served
    views = OperatorViews(profile, dsn, seconds=0)
    asked = [views.explanation(answer.hash, "count_24h", KEY, GROUP) for _ in range(MOST_WAITING + 2)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    words = [str(one) for one in outcomes if isinstance(one, ContractError) and one.reason.value == "OVERLOADED"]
    assert len(words) == len(outcomes)
    assert sum("wait" in one for one in words) == 2
    assert sum("ofp snapshot explain" in one for one in words) == MOST_WAITING
