"""A whole answer, put together again object by object: its values, freshness, warnings, hash and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel import snapshot
from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.snapshot import SnapshotMaker
from ofp_platform.kernel.windows import NEVER, Evaluation, evaluate
from ofp_platform.registry import on_demand
from ofp_platform.registry.exact_value import Unservable
from ofp_platform.registry.question import Question, check_request
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest, GetFeaturesResponse
from ofp_platform.vocabulary.snapshot_hash import hashed_object
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.oracle.matrices import matrices
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, small_registry
from ofp_platform_tests.oracle.strategies import LATENESS, PINS, SECOND, START

REGISTRY = small_registry()
RUN = ContextPins(**PINS)
BASIS: dict[str, Any] = {"stream_name": "s", "partitions": []}
BASIS_TEXT = '{"partitions":[],"stream_name":"s"}'
POSTURE = {"state": "GREEN", "reasons": [], "lag_records": 0}
GROUPS = [
    ("every", "v1"),
    ("lists", "v1"),
    ("ratios", "v2"),
    ("switches", "v1"),
    ("texts", "v1"),
    ("whole", "v1"),
    ("shop", "v1"),
]
Matrices = Mapping[tuple[str, str], Int64Array]


def maker() -> SnapshotMaker:
    return SnapshotMaker(REGISTRY, RUN, RUN_CONFIG, LATENESS)


def question(
    keys: Sequence[tuple[str, str]],
    groups: Sequence[tuple[str, str]],
    as_of: int,
    context: dict[str, int | str] | None = None,
    request_id: str | None = None,
    extensions: dict[str, Any] | None = None,
) -> Question:
    request = GetFeaturesRequest.model_validate(
        {
            "context_pins": PINS,
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in keys],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
            "as_of_time_utc": format_time(as_of),
            "request_context": context,
            "request_id": request_id,
            "extensions": extensions,
        }
    )
    return check_request(request, REGISTRY, RUN, Limits())


def nothing(key_type: str) -> Int64Array:
    return np.empty((REGISTRY.layouts[key_type].column_count, 0), np.int64)


class Naive:
    """What the contract says of a question, as plain objects."""

    def __init__(self, asked: Question, state: Matrices, watermark: int | None) -> None:
        self.by_key: list[Any] = []
        self.freshness: list[Any] = []
        self.warnings: list[dict[str, Any]] = []
        horizon = EARLIEST if watermark is None else watermark - REGISTRY.reach - LATENESS
        if asked.as_of - max(group.reach for group in asked.groups) < horizon:
            horizon = EARLIEST  # a forensic rebuild has none
        for key_type, key_id in asked.keys:
            by_group = []
            for group in asked.groups_of[key_type]:
                name = {"group_name": group.name, "group_version": group.version}
                query = query_of(LayoutArrays.of(REGISTRY.layouts[key_type]), [group])
                found = evaluate(query, state[key_type, key_id], asked.as_of, horizon)
                values = group_values(group, query, found, asked.as_of)
                values |= {one.name: on_demand.evaluate(one, values, asked.context or {}) for one in group.on_demand}
                features = {feature: wire(value) for feature, value in values.items()}
                by_group.append({**name, "features": features})
                touched = int(found.touches[0])
                age = None if touched == NEVER else (asked.as_of - touched) // SECOND
                stale = age is None or age > group.ttl_seconds
                self.freshness.append(
                    {
                        **name,
                        "key_type": key_type,
                        "key_id": key_id,
                        "ttl_seconds": group.ttl_seconds,
                        "last_update_event_time": None if touched == NEVER else format_time(touched),
                        "age_seconds": age,
                        "stale": stale,
                    }
                )
                codes = ["NO_DATA"] * (touched == NEVER) + ["STALE_GROUP"] * stale
                where = {"key_type": key_type, "key_id": key_id, **name}
                self.warnings += [{"code": code, **where} for code in codes]
                self.warnings += [
                    {"code": "VALUE_OUT_OF_RANGE", **where, "feature": feature}
                    for feature, value in values.items()
                    if value is Unservable.OUT_OF_RANGE
                ]
            self.by_key.append({"key_type": key_type, "key_id": key_id, "by_group": by_group})
        order = ("code", "key_type", "key_id", "group_name", "group_version", "feature")
        self.warnings.sort(key=lambda warning: [warning.get(name, "") for name in order])
        self.keys = [{"key_type": key_type, "key_id": key_id} for key_type, key_id in asked.keys]
        self.groups = [{"group_name": group.name, "group_version": group.version} for group in asked.groups]
        self.asked = asked
        age = None if watermark is None else (asked.as_of - watermark) // SECOND
        text = None if watermark is None else format_time(watermark)
        self.posture = {**POSTURE, "watermark_utc": text, "watermark_age_seconds": age}
        self.missing = sum(warning["code"] == "NO_DATA" for warning in self.warnings)

    @property
    def hashed(self) -> bytes:
        return jcs_bytes(
            hashed_object(
                context_pins=PINS,
                as_of_time_utc=self.asked.request.as_of_time_utc,
                feature_keys=self.keys,
                feature_groups=self.groups,
                registry_digest=REGISTRY.digest,
                run_config_digest=RUN_CONFIG,
                values=self.by_key,
                freshness=self.freshness,
                warnings=self.warnings,
                input_basis=BASIS,
                request_context=self.asked.context,
            )
        )

    @property
    def body(self) -> bytes:
        as_of = self.asked.request.as_of_time_utc
        return jcs_bytes(
            {
                "kind": "get_features_response",
                "contract_version": "ofp_public_contracts_v0",
                "snapshot": {
                    "kind": "feature_snapshot",
                    "contract_version": "ofp_public_contracts_v0",
                    "context_pins": PINS,
                    "as_of_time_utc": as_of,
                    "feature_snapshot_hash": hashlib.sha256(self.hashed).hexdigest(),
                    "by_key": self.by_key,
                },
                "provenance": {
                    "kind": "feature_provenance",
                    "contract_version": "ofp_public_contracts_v0",
                    "context_pins": PINS,
                    "feature_snapshot_hash": hashlib.sha256(self.hashed).hexdigest(),
                    "requested": {
                        "as_of_time_utc": as_of,
                        "feature_keys": self.keys,
                        "feature_groups": self.groups,
                        "request_context": self.asked.context,
                    },
                    "group_versions_used": self.groups,
                    "freshness": self.freshness,
                    "input_basis": BASIS,
                    "graph_version": None,
                    "feature_definition_set": {"pack_id": "oracle", "revision": 1, "digest": REGISTRY.digest},
                    "run_config_digest": RUN_CONFIG,
                    "warnings": self.warnings,
                    "posture": self.posture,
                    "request_id": self.asked.request.request_id,
                    "extensions": self.asked.request.extensions,
                },
            }
        )


def hold(asked: Question, state: Matrices, watermark: int | None, made: SnapshotMaker) -> None:
    """The maker's answer is the naive one, byte by byte, from evaluations and from whole matrices."""

    matrices_of = [state[key] for key in asked.keys]
    evaluated = [
        evaluate(made.query(asked.groups_of[key[0]]), state[key], asked.as_of, made.freshness_horizon(asked, watermark))
        for key in asked.keys
    ]
    ways: list[list[Evaluation] | list[Int64Array]] = [evaluated, matrices_of]
    naive = Naive(asked, state, watermark)
    for keys in ways:
        answer = made.snapshot(asked, BASIS_TEXT, watermark, keys, POSTURE, behind_horizon=True)
        assert answer.hashed == naive.hashed
        assert answer.body == naive.body
        assert answer.hash == hashlib.sha256(naive.hashed).hexdigest()
        assert answer.missing == naive.missing
        assert made.hashed(asked, BASIS_TEXT, watermark, keys) == naive.hashed


@given(st.data())
def test_an_answer_is_what_the_contract_says_object_by_object(data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.sampled_from(GROUPS), min_size=1, unique=True))
    types = sorted({REGISTRY.groups[ref].key_type for ref in groups})
    names = st.text(st.sampled_from('a"\\z9'), min_size=1, max_size=3)
    keys = [(key_type, name) for key_type in types for name in data.draw(st.sets(names, min_size=1, max_size=2))]
    state = {}
    for key in keys:
        matrix = data.draw(matrices(REGISTRY.layouts[key[0]], max_events=8))
        if data.draw(st.booleans()):  # values that fit
            first = REGISTRY.layouts[key[0]].first_integer_row
            matrix[first : first + len(REGISTRY.layouts[key[0]].integer_fields)] %= 1_000
        matrix[0] = START + matrix[0] * SECOND // 2
        state[key] = np.ascontiguousarray(matrix)
    as_of = START + data.draw(st.integers(0, 30 * SECOND))
    watermark = data.draw(st.none() | st.integers(as_of - 40 * SECOND, as_of + 40 * SECOND))
    context: dict[str, int | str] | None = (
        {"amount": 12345, "other": "x"} if data.draw(st.booleans()) or ("every", "v1") in groups else None
    )
    request_id = data.draw(st.none() | st.just("r-1"))
    extensions = data.draw(st.none() | st.just({"trace": {"\u00fc": [1.5, 1e21, None], "a": "%s"}}))
    hold(question(keys, groups, as_of, context, request_id, extensions), state, watermark, maker())


def test_one_maker_answers_one_question_after_another() -> None:
    made = maker()
    state = {("account", "a"): nothing("account"), ("merchant", "m"): nothing("merchant")}
    event = np.zeros((REGISTRY.layouts["merchant"].column_count, 1), np.int64)
    event[0], event[1] = START, -1
    seen = {**state, ("merchant", "m"): event}
    for watermark in (None, START, START, START + SECOND, None):
        for known in (state, seen):
            hold(question([("merchant", "m")], [("shop", "v1")], START + 2 * SECOND), known, watermark, made)
            both = question([("merchant", "m"), ("account", "a")], [("shop", "v1"), ("ratios", "v2")], START, request_id="x")
            hold(both, known, watermark, made)


@pytest.mark.parametrize(("age", "stale"), [(0, False), (3 * SECOND, False), (4 * SECOND - 1, False), (4 * SECOND, True)])
def test_a_group_is_stale_from_the_second_after_its_time_to_live(age: int, stale: bool) -> None:
    event = np.zeros((REGISTRY.layouts["merchant"].column_count, 1), np.int64)
    event[0], event[1] = START, -1
    asked = question([("merchant", "m")], [("shop", "v1")], START + age)
    hold(asked, {("merchant", "m"): event}, None, maker())
    answer = maker().snapshot(asked, BASIS_TEXT, None, [event], POSTURE)
    told = GetFeaturesResponse.model_validate_json(answer.body).provenance
    assert told.freshness[0].stale is stale
    assert [warning.code for warning in told.warnings] == ["STALE_GROUP"] * stale


def test_a_window_that_begins_behind_the_horizon_is_refused() -> None:
    made = maker()
    assert made.horizon(None) == EARLIEST
    watermark = START
    assert made.horizon(watermark) == watermark - REGISTRY.reach - LATENESS
    reach = REGISTRY.groups["shop", "v1"].reach
    assert reach < REGISTRY.reach  # the reach is that of the groups that were asked for

    def answered(as_of: int, watermark: int | None, behind_horizon: bool = False) -> bytes:
        asked = question([("merchant", "m")], [("shop", "v1")], as_of)
        return made.snapshot(asked, BASIS_TEXT, watermark, [nothing("merchant")], POSTURE, behind_horizon=behind_horizon).body

    first = made.horizon(watermark) + reach
    assert answered(first, watermark)
    assert answered(first - 1, None)
    assert answered(first - 1, watermark, behind_horizon=True)
    with pytest.raises(
        ContractError, match=f"begins 4 s before the as-of, behind the horizon {format_time(first - reach)};"
    ) as caught:
        answered(first - 1, watermark)
    assert (caught.value.reason, caught.value.context_pins) == (Reason.AS_OF_BEFORE_HORIZON, RUN)
    asked = question([("merchant", "m")], [("shop", "v1")], first - 1)
    with pytest.raises(ContractError, match="behind the horizon"):  # it has to be asked for
        made.snapshot(asked, BASIS_TEXT, watermark, [nothing("merchant")], POSTURE)
    early = parse_time("0001-01-01T00:00:00Z")
    with pytest.raises(ContractError, match=r"behind the horizon 0001-01-01T00:00:00Z;"):
        answered(early, early + REGISTRY.reach + LATENESS)
    with pytest.raises(ContractError, match="behind the horizon before year 1;"):
        answered(early, early + REGISTRY.reach + LATENESS - 1)


def test_what_is_derived_is_kept_and_no_more_than_so_much_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = maker()
    asked = [question([("account", "a")], [ref], START, {"amount": 1}) for ref in GROUPS[:2]]
    asked.append(question([("merchant", "m")], [("shop", "v1")], START))
    asked.append(question([("account", "a")], GROUPS[:2], START, {"amount": 1}))
    forms = [made._form(one) for one in asked]
    queries = [made.query(one.groups) for one in asked]
    assert [made._form(one) for one in asked] == forms
    assert [made.query(one.groups) for one in asked] == queries  # of one making: queries are told apart
    monkeypatch.setattr(snapshot, "_MOST_FORMS", 2)
    made = maker()
    for most in (1, 2, 3, 1):
        one = asked[most - 1 if len(made._forms) < 3 else 3]
        made._form(one)
        assert (len(made._forms), len(made._queries)) == (most, most)
