"""Keys made of observed identifiers: as if the event had named the entity, and what is refused of a list of identifiers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.registry.aggregations import RULES
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import Reason
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.identity_link import minted_id
from ofp_platform.vocabulary.observed_keys import NO_TOKEN, SEVERAL, UNREADABLE, Identifiers, ObservedKey, with_observed_keys
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerEvent
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import Record
from ofp_platform_tests.oracle.rebuilt import parity, replayed, runs_of, snapshot_anchor
from ofp_platform_tests.oracle.replayed import build, record_batches
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, PACK, PLAIN_PACK, SECOND, START, World, worlds

SOURCE = "observed_identifiers[terminal]"
PATTERN = 'key_patterns: {merchant: "[^7x]+"}\n'
OBSERVING = (
    PACK.replace(PATTERN, "")
    .replace("merchant: merchant_id", f"merchant: '{SOURCE}'")
    .replace("pack_id: oracle", "pack_id: observing")
)
ADDRESS = "someone@example.org"


@cache
def observing_registry() -> CompiledRegistry:
    """The pack of the oracle with merchants that are known by the token of their terminal alone."""
    return compile_pack(load_pack(OBSERVING))


def minted(token: str) -> str:
    return minted_id(KeyType.MERCHANT, "terminal", token)


def listed(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"id_type": id_type, "id_token": token} for id_type, token in pairs]


def as_observed(record: Record, others: bool) -> Record:
    """The record with an identifier in place of its merchant."""
    payload = dict(record.envelope["payload"]) if isinstance(record.envelope["payload"], Mapping) else {}
    if not fold._is_key(payload.get("merchant_id"), None):
        return record
    merchant = payload.pop("merchant_id")
    pairs: list[tuple[str, Any]] = [("terminal", merchant)] * (2 if others else 1)
    payload["observed_identifiers"] = listed(*pairs, *([("phone", "t-1")] if others else []))
    return replace(record, envelope={**record.envelope, "payload": payload})


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def of(key: ObservedKey, *pairs: tuple[str, Any]) -> str:
    return key.of(msgspec.convert(listed(*pairs), Identifiers))


def test_an_identifier_is_an_entity_whose_id_anybody_can_compute() -> None:
    key = ObservedKey(SOURCE, KeyType.MERCHANT)
    assert of(key, ("terminal", "t-1")) == minted("t-1") == of(key, ("phone", "x"), ("terminal", "t-1"), ("terminal", "t-1"))
    assert of(key) == of(key, ("phone", "t-1")) == of(key, ("terminal", "")) == ""
    assert of(key, ("terminal", "t-1"), ("terminal", "t-2")) == SEVERAL
    for number in ("4111111111111111", ADDRESS, "192.0.2.1"):
        assert of(key, ("terminal", number)) == NO_TOKEN
    with pytest.raises(ValueError, match="'merchant_id' is a payload field"):
        ObservedKey("merchant_id", KeyType.MERCHANT)


@pytest.mark.parametrize("found", [[{"id_type": "terminal"}], {"id_type": "terminal"}, [3], listed(("terminal", 5)), 7])
def test_a_list_that_is_none_makes_no_key(found: object) -> None:
    keys = {SOURCE: "merchant", "account_id": "account"}
    payload = {"account_id": "a-1", "observed_identifiers": found}
    assert with_observed_keys(payload, keys) == {**payload, SOURCE: UNREADABLE}
    assert with_observed_keys({"account_id": "a-1"}, keys)[SOURCE] == ""


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(worlds(partitions=("0000", "0001")), st.booleans(), st.data())
def test_served_and_rebuilt_as_if_the_event_had_named_the_entity(
    pool: Pool, tmp_path_factory: pytest.TempPathFactory, world: World, others: bool, data: st.DataObject
) -> None:
    plane = SmallPlane(pool, f"observed-{uuid4()}", registry=observing_registry(), partitions=2, chunk_events=3)
    plane.load([as_observed(record, others) for record in world.records])
    plane.drain(sizes=iter((2, 3, 50)))
    groups = [(one["name"], one["version"]) for one in plane.content["groups"] if not one["request"]]
    answers = []
    for merchant in (*MERCHANTS, "nobody"):
        keys = [("account", data.draw(st.sampled_from(ACCOUNTS))), ("merchant", minted(merchant))]
        if plane.check(keys, groups, START + 32 * SECOND) != Reason.AS_OF_BEFORE_HORIZON:
            answers.append(plane.reader.answer(plane.request(keys, groups, START + 32 * SECOND)))
    run = replayed(plane, tmp_path_factory.mktemp("replay") / "fold", registry=plane.registry)
    results = parity(
        map(snapshot_anchor, answers), ParityRuns(plane.log.stream_name, plane.pins, runs_of(plane, run).runs), answers
    )
    assert [result.outcome for result in results] == [ParityOutcome.MATCH] * len(answers)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=25, deadline=None)
@given(worlds(partitions=("p0",)), st.booleans())
def test_rows_have_the_ids_that_identifiers_make(world: World, others: bool) -> None:
    def rows(records: list[Record], registry: CompiledRegistry) -> list[dict[str, Any]] | str:
        with tempfile.TemporaryDirectory() as folder:
            try:
                scope = PerEvent(event_types=("payment", "refund"))
                return build(record_batches(records), scope, AsOfBasis.EVENT_TIME, Path(folder), registry=registry).rows
            except BuildRefused as refused:
                return refused.reason.value

    text = PLAIN_PACK.replace(PATTERN, "")
    plain = rows(list(world.records), compile_pack(load_pack(text)))
    observing = compile_pack(load_pack(text.replace("merchant: merchant_id", f"merchant: '{SOURCE}'")))
    found = rows([as_observed(record, others) for record in world.records], observing)
    if isinstance(plain, str) or isinstance(found, str):
        assert plain == found
        return
    starts = ("event_", "account_", "merchant_", "shop_", "every_v1__a_", "every_v1__b_")
    by_tie = tuple(f"_{aggregation}" for aggregation, rule in RULES.items() if rule.ordered)  # by the payload's bytes
    names = [name for name in plain[0] if name.startswith(starts) and not name.endswith(by_tie)]
    for row in plain:
        if row["merchant_id"] is not None:
            row["merchant_id"] = minted(row["merchant_id"])
    assert sorted(str([row[name] for name in names]) for row in found) == sorted(
        str([row[name] for name in names]) for row in plain
    )


@pytest.mark.parametrize(
    ("identifiers", "reason", "detail"),
    [
        (None, "MISSING_KEY", "payload field 'observed_identifiers[terminal]', the merchant key, is missing"),
        (listed(("phone", "t-1")), "MISSING_KEY", "is missing"),
        (listed(("terminal", "t-1"), ("terminal", "t-2")), "INVALID_KEY", "has several tokens"),
        (listed(("terminal", ADDRESS)), "RAW_IDENTIFIER", "has no token but the thing itself"),
        ([{"id_type": "terminal"}], "WRONG_TYPE", "payload field 'observed_identifiers' must be a list of objects"),
    ],
)
def test_what_makes_no_key_is_told_and_feeds_the_other_groups(pool: Pool, identifiers: object, reason: str, detail: str) -> None:
    plane = SmallPlane(pool, f"refused-{uuid4()}", registry=observing_registry())
    sent = payment("e-1", 0)
    del sent["payload"]["merchant_id"]
    sent["payload"] |= {} if identifiers is None else {"observed_identifiers": identifiers}
    plane.append([sent])
    plane.drain()
    with pool.connection() as connection:
        failures = connection.execute(
            "SELECT reason, detail FROM ofp.apply_failure WHERE projection_id = %s", (plane.projection_id,)
        ).fetchall()
    assert [found for found, _ in failures] == [reason]
    assert detail in failures[0][1]
    assert ADDRESS not in json.dumps(failures[0])
    body = json.loads(plane.reader.answer(plane.request([("account", "a-1")], [("whole", "v1")], START)).body)
    assert "NO_DATA" not in {warning["code"] for warning in body["provenance"]["warnings"]}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("events:\n", "key_patterns: {merchant: 'm-[0-9]+'}\nevents:\n", "the pattern of merchant keys does not match such ids"),
        (
            "amount: integer",
            "amount: integer, observed_identifiers: string",
            "is the list of identifiers, of which keys are made",
        ),
        (SOURCE, "observed_identifiers[]", "keys.merchant"),
    ],
)
def test_a_pack_whose_keys_cannot_be_made_is_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(PackErrors) as caught:
        load_pack(OBSERVING.replace(old, new, 1))
    assert told in str(caught.value)
