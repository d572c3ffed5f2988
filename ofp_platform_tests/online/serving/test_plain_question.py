"""The fast path of a request against the model: valid or mutated, both accept the same and refuse in the same words."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ofp_platform.online.serving.plain_question import QuestionReader
from ofp_platform.online.serving.request import parse_request
from ofp_platform.registry.question import Question, check_request
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION
from ofp_platform_tests.oracle.small_plane import small_registry
from ofp_platform_tests.oracle.strategies import PINS

LIMITS = Limits(max_keys=4, max_groups=3, max_body_bytes=4096, max_request_context_fields=3)
RUN = ContextPins(**PINS)
PAST_THE_END = object()

key_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128) | st.sampled_from(
    ["a-1", "4111111111111112"]
)
times = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
contexts = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True), st.integers() | st.text(max_size=20), max_size=2
)
positions = st.lists(
    st.fixed_dictionaries(
        {"stream_name": st.just("s"), "partition_id": st.just("0000"), "offset": st.integers(0, 2**53 - 1) | st.just("7")}
    ),
    max_size=2,
)
extensions = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("4111 1111 1111 1111"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=2,
)
odd_texts = st.sampled_from(
    [
        "",
        "a" * 128,
        "a" * 129,
        "a\n",
        "a b",
        "\u0131",
        "4111111111111111",
        "v0",
        "ofp_public_contracts_v0",
        "2024-05-01T24:00:00Z",
        "2024-05-01T12:00:00.000000Z",
        "2024-05-01T12:00:00.10Z",
        "2024-05-01T12:00:00Z\n",
        "2024-05-01t12:00:00Z",
        "2016-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "\u0662024-05-01T12:00:00Z",
    ]
)
# copies: a later mutation may change what was drawn
odd_values = (
    odd_texts | st.sampled_from([None, True, 0, -1, 1.0, 2**53, 10**30, [], {}, [[]]]).map(deepcopy) | st.text(max_size=5)
)


@st.composite
def valid_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A body that the model accepts, with some of the optional fields."""
    body: dict[str, Any] = {
        "context_pins": dict(PINS),
        "feature_keys": [{"key_type": "account", "key_id": each} for each in draw(st.lists(key_ids, min_size=1, max_size=4))],
        "feature_groups": [{"group_name": "ratios", "group_version": "v2"}],
        "as_of_time_utc": draw(times),
    }
    optional = {
        "kind": st.just("get_features_request"),
        "contract_version": st.just("ofp_public_contracts_v0"),
        "request_context": st.none() | contexts,
        "at_least_basis": st.none() | positions,
        "extensions": st.none() | extensions,
        "request_id": st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", fullmatch=True),
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            body[name] = draw(values)
    return body


@st.composite
def mutated_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A valid body after one to three changes: a field replaced, deleted or added, at any depth."""
    body = json.loads(json.dumps(draw(valid_bodies())))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = body
        while True:
            places: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            place = draw(st.sampled_from([*places, PAST_THE_END]))
            if place is PAST_THE_END:
                if isinstance(node, dict):
                    node[draw(st.sampled_from(["extra", "A", "request_id", "extensions", "seed", "amount"]))] = draw(odd_values)
                else:
                    node.append(draw(st.sampled_from(node)) if node else draw(odd_values))
                break
            if isinstance(node[place], dict | list) and draw(st.booleans()):
                node = node[place]
                continue
            if draw(st.booleans()):
                node[place] = draw(odd_values)
            else:
                del node[place]
            break
    return body


def outcome(read: Any, body: bytes) -> tuple[Any, ...]:
    """The question field by field, or the refusal's code, reason and message."""
    try:
        question: Question = read(body)
    except ContractError as error:
        return error.code, error.reason, str(error), error.wire()
    request = question.request
    fields = ("context_pins", "as_of_time_utc", "request_context", "at_least_basis", "request_id", "extensions")
    values = tuple(getattr(request, field) for field in fields)
    return values, question.as_of, question.keys, question.groups, dict(question.groups_of), question.context


def by_model(body: bytes) -> Question:
    return check_request(parse_request(body, LIMITS), small_registry(), RUN, LIMITS)


def hold(body: dict[str, Any]) -> bool:
    """Hold reader and fast path against the model, the second time from cached parts; whether the fast path took the body."""
    raw = json.dumps(body, ensure_ascii=False).encode()
    reader = QuestionReader(small_registry(), RUN, LIMITS)
    expected = outcome(by_model, raw)
    for _ in range(2):
        assert outcome(reader.read, raw) == expected
        if reader.plain(raw) is not None:
            assert outcome(reader.plain, raw) == expected
    return reader.plain(raw) is not None


@settings(max_examples=300, deadline=None)
@given(valid_bodies())
def test_fast_path_takes_every_valid_body_and_reads_it_as_the_model_does(body: dict[str, Any]) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode()
    try:
        by_model(raw)
    except ContractError:  # a key drawn twice, an integer beyond 2^53, a raw identifier
        assert not hold(body)
    else:
        assert hold(body)


@settings(max_examples=600, deadline=None)
@given(mutated_bodies())
@example({"context_pins": PINS})
def test_fast_path_and_model_agree_on_mutated_bodies(body: dict[str, Any]) -> None:
    hold(body)


@pytest.mark.parametrize("name", ["as_of_time_utc", "request_id", "kind", "contract_version"])
@pytest.mark.parametrize(
    "text",
    ["2024-05-01T24:00:00Z", "2024-05-01T12:00:00Z\n", "2024-05-01T12:00:00.000000Z", "r\n", "r", CONTRACT_VERSION],
)
def test_fast_path_and_model_agree_on_the_edges_of_a_text(name: str, text: str) -> None:
    hold(
        {
            "context_pins": PINS,
            "feature_keys": [{"key_type": "account", "key_id": "a-1"}],
            "feature_groups": [{"group_name": "ratios", "group_version": "v2"}],
            "as_of_time_utc": "2024-05-01T12:00:00Z",
            name: text,
        }
    )
