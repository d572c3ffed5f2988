"""Every refusal that needs no state, by its reason; and none repeats what was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.online.serving.plain_question import QuestionReader
from ofp_platform.online.serving.request import parse_request
from ofp_platform.registry.question import Question, check_request
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform_tests.oracle.small_plane import small_registry
from ofp_platform_tests.oracle.strategies import PINS

CARD = "4111111111111111"
SPACED = "4111 1111 1111 1111"
LIMITS = Limits(max_keys=3, max_groups=2, max_body_bytes=2048, max_request_context_fields=2)
BODY: dict[str, Any] = {
    "context_pins": PINS,
    "feature_keys": [{"key_type": "account", "key_id": "a-1"}],
    "feature_groups": [{"group_name": "ratios", "group_version": "v2"}],
    "as_of_time_utc": "2024-05-01T12:00:00Z",
}
EVERY = [{"group_name": "every", "group_version": "v1"}]
SHOP = [{"group_name": "shop", "group_version": "v1"}]


def with_(**changes: Any) -> dict[str, Any]:
    return {**BODY, **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in BODY.items() if key != name}


def key(key_type: str = "account", key_id: str = "a-1") -> dict[str, str]:
    return {"key_type": key_type, "key_id": key_id}


def ask(body: Mapping[str, Any] | bytes, limits: Limits = LIMITS) -> Question:
    """The question, by the long way; the short way takes it or leaves it, and never takes what the long way refuses."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader = QuestionReader(small_registry(), ContextPins(**PINS), limits)
    try:
        question = check_request(parse_request(raw, limits), small_registry(), ContextPins(**PINS), limits)
    except ContractError:
        assert reader.plain(raw) is None
        raise
    for _ in range(2):  # the second time from what it knows of the first
        plain = reader.plain(raw)
        if plain is not None:
            assert (plain.as_of, plain.keys, plain.groups, plain.context) == (
                question.as_of,
                question.keys,
                question.groups,
                question.context,
            )
            assert dict(plain.groups_of) == question.groups_of
            for name in ("context_pins", "as_of_time_utc", "request_context", "at_least_basis", "request_id", "extensions"):
                assert getattr(plain.request, name) == getattr(question.request, name)
    return question


def refusal(body: Mapping[str, Any] | bytes, limits: Limits = LIMITS) -> ContractError:
    with pytest.raises(ContractError) as caught:
        ask(body, limits)
    return caught.value


def doubled(name: str, spelt: str | None = None) -> bytes:
    """The good body with one field written twice, first with another value, as an attacker before a proxy would."""
    text = json.dumps(BODY)
    return text.replace(f'"{name}": ', f'"{spelt or name}": "other", "{name}": ', 1).encode()


BAD: list[tuple[str, Any, Reason]] = [
    ("broken JSON", b'{"context_pins":', Reason.MALFORMED_JSON),
    ("no JSON at all", b"\xff\xfe", Reason.MALFORMED_JSON),
    ("nothing", b"", Reason.MALFORMED_JSON),
    ("nested without end", b"[" * 2000, Reason.MALFORMED_JSON),
    ("a list", b"[]", Reason.INVALID_FIELD),
    ("a lone surrogate", b'{"request_id": "\\ud800"}', Reason.MALFORMED_JSON),
    ("a field twice", doubled("run_id"), Reason.MALFORMED_JSON),
    ("a field twice by an escape", doubled("run_id", "\\u0072un_id"), Reason.MALFORMED_JSON),
    ("a key's field twice", doubled("key_id"), Reason.MALFORMED_JSON),
    ("a group's field twice", doubled("group_name"), Reason.MALFORMED_JSON),
    ("the as-of twice", doubled("as_of_time_utc"), Reason.MALFORMED_JSON),
    ("a field of the context twice", b'{"request_context": {"amount": 1, "amount": 1}}', Reason.MALFORMED_JSON),
    ("not a number", b'{"request_context": {"amount": NaN}}', Reason.MALFORMED_JSON),
    ("a number without end", b'{"request_context": {"amount": 1e999}}', Reason.MALFORMED_JSON),
    ("a byte order mark", b"\xef\xbb\xbf{}", Reason.MALFORMED_JSON),
    ("too many bytes", b" " * 2049, Reason.BODY_TOO_LARGE),
    ("no as-of", without("as_of_time_utc"), Reason.MISSING_FIELD),
    ("no pins", without("context_pins"), Reason.MISSING_FIELD),
    ("no keys field", without("feature_keys"), Reason.MISSING_FIELD),
    ("as-of without a zone", with_(as_of_time_utc="2024-05-01T12:00:00"), Reason.INVALID_TIME),
    ("as-of with another zone", with_(as_of_time_utc="2024-05-01T12:00:00+01:00"), Reason.INVALID_TIME),
    ("as-of with 9 digits", with_(as_of_time_utc="2024-05-01T12:00:00.123456789Z"), Reason.INVALID_TIME),
    ("as-of on 30 February", with_(as_of_time_utc="2024-02-30T12:00:00Z"), Reason.INVALID_TIME),
    ("as-of in a leap second", with_(as_of_time_utc="2016-12-31T23:59:60Z"), Reason.INVALID_TIME),
    ("as-of as a number", with_(as_of_time_utc=1714564800), Reason.INVALID_TIME),
    ("as-of null", with_(as_of_time_utc=None), Reason.INVALID_TIME),
    ("a card number as as-of", with_(as_of_time_utc=CARD), Reason.INVALID_TIME),
    ("a card number as key", with_(feature_keys=[key(key_id=CARD)]), Reason.RAW_IDENTIFIER),
    ("a card number with dashes", with_(feature_keys=[key(), key(key_id="4111-1111-1111-1111")]), Reason.RAW_IDENTIFIER),
    ("an e-mail address as key", with_(feature_keys=[key(key_id="me@example.com")]), Reason.RAW_IDENTIFIER),
    ("an IP address as key", with_(feature_keys=[key(), key(key_id="192.168.0.17")]), Reason.RAW_IDENTIFIER),
    ("an IBAN as key", with_(feature_keys=[key(key_id="DE89370400440532013000")]), Reason.RAW_IDENTIFIER),
    ("a bare fingerprint as key", with_(feature_keys=[key(key_id="0f" * 32)]), Reason.RAW_IDENTIFIER),
    (
        "a key beside its pattern",
        with_(feature_keys=[key("merchant", "x-1")], feature_groups=SHOP),
        Reason.INVALID_KEY,
    ),
    (
        "a bare fingerprint beside a pattern",
        with_(feature_keys=[key("merchant", "7f" * 32)], feature_groups=SHOP),
        Reason.INVALID_KEY,
    ),
    (
        "an e-mail address beside a pattern",
        with_(feature_keys=[key("merchant", "me@example.com")], feature_groups=SHOP),
        Reason.RAW_IDENTIFIER,
    ),
    ("a card number as run", with_(context_pins={**PINS, "run_id": CARD}), Reason.RAW_IDENTIFIER),
    ("a card number as request id", with_(request_id=CARD), Reason.RAW_IDENTIFIER),
    ("a card number in the request context", with_(request_context={"memo": SPACED}), Reason.RAW_IDENTIFIER),
    ("a card number as a field", with_(**{CARD: 1}), Reason.INVALID_FIELD),
    ("a card number as a context field", with_(request_context={CARD: 1}), Reason.INVALID_FIELD),
    ("a card number as key type", with_(feature_keys=[key(key_type=CARD)]), Reason.INVALID_FIELD),
    ("a card number as group", with_(feature_groups=[{"group_name": CARD, "group_version": "v1"}]), Reason.INVALID_FIELD),
    ("a card number as version", with_(feature_groups=[{"group_name": "every", "group_version": CARD}]), Reason.RAW_IDENTIFIER),
    ("a card number as fingerprint", with_(context_pins={**PINS, "manifest_fingerprint": CARD}), Reason.RAW_IDENTIFIER),
    ("a card number in the extensions", with_(extensions={"a": [{"b": SPACED}]}), Reason.RAW_IDENTIFIER),
    ("a card number as an extension", with_(extensions={CARD: 1}), Reason.RAW_IDENTIFIER),
    ("extensions that are a list", with_(extensions=[]), Reason.INVALID_FIELD),
    ("extensions beyond I-JSON", with_(extensions={"a": 2**53}), Reason.INVALID_FIELD),
    ("the latest version", with_(feature_groups=[{"group_name": "every", "group_version": "latest"}]), Reason.INVALID_FIELD),
    ("a version with a space", with_(feature_groups=[{"group_name": "every", "group_version": "1 0"}]), Reason.INVALID_FIELD),
    ("a long version", with_(feature_groups=[{"group_name": "every", "group_version": "1" * 129}]), Reason.INVALID_FIELD),
    ("another contract", with_(contract_version="v0"), Reason.INVALID_FIELD),
    ("an unknown field", with_(latest=True), Reason.INVALID_FIELD),
    ("another kind", with_(kind=CARD), Reason.INVALID_FIELD),
    ("a key with a space", with_(feature_keys=[key(key_id="a 1")]), Reason.INVALID_FIELD),
    ("no keys", with_(feature_keys=[]), Reason.INVALID_FIELD),
    ("no groups", with_(feature_groups=[]), Reason.INVALID_FIELD),
    ("too many keys", with_(feature_keys=[key(key_id=f"a-{number}") for number in range(4)]), Reason.TOO_MANY_KEYS),
    ("too many groups", with_(feature_groups=[*EVERY, *SHOP, *BODY["feature_groups"]]), Reason.TOO_MANY_GROUPS),
    ("a key twice", with_(feature_keys=[key(), key()]), Reason.DUPLICATE_KEY),
    ("a group twice", with_(feature_groups=BODY["feature_groups"] * 2), Reason.DUPLICATE_GROUP),
    ("another run", with_(context_pins={**PINS, "run_id": "run-9"}), Reason.UNKNOWN_RUN),
    ("the run with a seed more", with_(context_pins={**PINS, "seed": 1}), Reason.UNKNOWN_RUN),
    (
        "an unknown version",
        with_(feature_groups=[{"group_name": "ratios", "group_version": "v3"}]),
        Reason.UNKNOWN_GROUP_VERSION,
    ),
    (
        "an unknown group",
        with_(feature_groups=[{"group_name": "nothing", "group_version": "v1"}]),
        Reason.UNKNOWN_GROUP_VERSION,
    ),
    ("a group of another key type", with_(feature_groups=SHOP), Reason.KEY_WITHOUT_GROUP),
    ("a group more than the keys have", with_(feature_groups=[*BODY["feature_groups"], *SHOP]), Reason.GROUP_WITHOUT_KEY),
    ("no context for an on-demand feature", with_(feature_groups=EVERY), Reason.REQUEST_CONTEXT_MISSING),
    (
        "the context field under another name",
        with_(feature_groups=EVERY, request_context={"amounts": 1}),
        Reason.REQUEST_CONTEXT_MISSING,
    ),
    ("a word for an integer", with_(feature_groups=EVERY, request_context={"amount": "1"}), Reason.REQUEST_CONTEXT_INVALID),
    ("a float for an integer", with_(feature_groups=EVERY, request_context={"amount": 1.5}), Reason.INVALID_FIELD),
    ("true for an integer", with_(feature_groups=EVERY, request_context={"amount": True}), Reason.INVALID_FIELD),
    ("an integer too big", with_(feature_groups=EVERY, request_context={"amount": 2**53}), Reason.REQUEST_CONTEXT_INVALID),
    ("an integer of 30 digits", with_(request_context={"amount": 10**30}), Reason.REQUEST_CONTEXT_INVALID),
    ("a long text in the context", with_(request_context={"memo": "x" * 257}), Reason.REQUEST_CONTEXT_INVALID),
    ("too many context fields", with_(request_context={"a": 1, "b": 1, "c": 1}), Reason.REQUEST_CONTEXT_INVALID),
    ("a position without an offset", with_(at_least_basis=[{"stream_name": "s", "partition_id": "p"}]), Reason.MISSING_FIELD),
    (
        "a position with a float",
        with_(at_least_basis=[{"stream_name": "s", "partition_id": "p", "offset": 1.5}]),
        Reason.INVALID_FIELD,
    ),
]


@pytest.mark.parametrize(("body", "reason"), [pytest.param(body, reason, id=name) for name, body, reason in BAD])
def test_it_is_refused_with_its_reason_and_not_repeated(body: Any, reason: Reason) -> None:
    error = refusal(body)
    assert error.reason is reason
    not_found = {Reason.UNKNOWN_RUN, Reason.UNKNOWN_GROUP_VERSION}
    assert error.code is (ErrorCode.NOT_FOUND if reason in not_found else ErrorCode.INVALID_REQUEST)
    assert not error.retryable
    wire = json.dumps(error.wire())
    assert CARD not in wire
    assert SPACED not in wire
    assert "4111" not in wire
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    for value in (b"123456789Z", b"+01:00", b"02-30", b"23:59:60", b"xxxx", b"a 1", b"1714564800", b"10000000000"):
        assert value not in sent or value.decode() not in wire


@pytest.mark.parametrize(("body", "reason"), [pytest.param(body, reason, id=name) for name, body, reason in BAD])
def test_a_refusal_carries_the_pins_wherever_they_can_be_read(body: Any, reason: Reason) -> None:
    error = refusal(body)
    if isinstance(body, bytes) or reason is Reason.MALFORMED_JSON:
        assert error.context_pins is None
        return
    pins = body.get("context_pins", {})
    try:
        expected = ContextPins.model_validate(pins)
    except ValueError:  # none, or a card number among them
        expected = None
    assert error.context_pins == expected
    assert (expected is None) == (pins == {} or CARD in pins.values())


def test_a_key_of_its_pattern_is_asked_the_short_way() -> None:
    body = with_(feature_keys=[key("merchant", "m-12")], feature_groups=SHOP)
    assert ask(body).keys == (("merchant", "m-12"),)
    reader = QuestionReader(small_registry(), ContextPins(**PINS), LIMITS)
    assert reader.plain(json.dumps(body).encode()) is not None
    assert (
        "does not match the pattern of merchant keys in the pack, [^7x]+"
        in refusal(with_(feature_keys=[key("merchant", "x-1")], feature_groups=SHOP)).message
    )


def test_a_body_too_large_that_came_as_a_whole_is_refused_with_its_pins() -> None:
    body = json.dumps(with_(request_context={"memo": "x" * 2048})).encode()
    error = refusal(body)
    assert (error.reason, error.context_pins) == (Reason.BODY_TOO_LARGE, ContextPins(**PINS))


def test_the_request_of_the_design_is_valid_and_of_another_run() -> None:
    body = (Path(__file__).parents[2] / "api" / "design_examples" / "get_features_request.json").read_bytes()
    error = refusal(body)
    assert (error.code, error.reason) == (ErrorCode.NOT_FOUND, Reason.UNKNOWN_RUN)
    assert error.context_pins is not None
    assert error.context_pins.wire() == json.loads(body)["context_pins"]


def test_extensions_change_nothing_of_the_question_and_come_back() -> None:
    extensions = {"trace": {"id": "t-1", "sampled": True, "rate": 0.5}, "": None}
    plain, extended = ask(BODY), ask(with_(extensions=extensions))
    assert extended.request.extensions == extensions
    assert (plain.as_of, plain.keys, plain.groups, plain.context) == (
        extended.as_of,
        extended.keys,
        extended.groups,
        extended.context,
    )


def test_the_first_of_many_problems_names_its_field_and_says_how_many_more_there_are() -> None:
    wrong = [key(key_type=name) for name in ("wallet", "purse", "sock")]
    error = refusal(with_(feature_keys=[*wrong, key()], x=1, y=2))
    assert "feature_keys.0.key_type" in error.message
    assert "(and 2 more)" in error.message


@pytest.mark.parametrize("name", ["feature_keys", "feature_groups"])
def test_a_list_of_one_wrong_item_is_not_called_empty(name: str) -> None:
    assert "at least" not in refusal(with_(**{name: [{}]})).message
    assert "at least 1 item" in refusal(with_(**{name: []})).message


def test_ten_thousand_keys_are_refused_by_size_and_by_number() -> None:
    body = json.dumps(with_(feature_keys=[key(key_id=f"a-{number}") for number in range(10_000)])).encode()
    assert refusal(body, Limits()).reason is Reason.BODY_TOO_LARGE
    error = refusal(body, Limits(max_body_bytes=len(body)))
    assert error.reason is Reason.TOO_MANY_KEYS
    assert error.message == "10000 keys; the limit is 100"


def test_the_limits_themselves_are_allowed() -> None:
    keys = [key(key_id=f"a-{number}") for number in range(LIMITS.max_keys)]
    body = json.dumps(with_(feature_keys=keys, request_context={"a": 1, "b": 2**53 - 1}))
    assert len(ask(body.ljust(LIMITS.max_body_bytes).encode()).keys) == LIMITS.max_keys


def test_a_question_is_in_canonical_order_whatever_the_order_of_the_request() -> None:
    question = ask(
        with_(
            feature_keys=[key("merchant", "m-1"), key(key_id="b"), key(key_id="a")],
            feature_groups=[*SHOP, *BODY["feature_groups"]],
            as_of_time_utc="2024-05-01T12:00:00.1Z",
        )
    )
    assert question.keys == (("account", "a"), ("account", "b"), ("merchant", "m-1"))
    assert [plan.name for plan in question.groups] == ["ratios", "shop"]
    assert {kind: [plan.name for plan in plans] for kind, plans in question.groups_of.items()} == {
        "account": ["ratios"],
        "merchant": ["shop"],
    }
    assert question.request.as_of_time_utc == "2024-05-01T12:00:00.100000Z"


@pytest.mark.parametrize(
    ("groups", "given", "used"),
    [
        (BODY["feature_groups"], None, None),
        (BODY["feature_groups"], {"amount": 5}, None),
        (EVERY, {"amount": 5}, {"amount": 5}),
        (EVERY, {"amount": -5, "memo": "by hand"}, {"amount": -5}),
    ],
)
def test_only_what_on_demand_features_read_of_the_context_counts(groups: Any, given: Any, used: Any) -> None:
    assert ask(with_(feature_groups=groups, request_context=given)).context == used


def test_a_number_that_fails_the_check_digit_is_a_key() -> None:
    assert ask(with_(feature_keys=[key(key_id="4111111111111112")])).keys == (("account", "4111111111111112"),)


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        with_(as_of_time_utc="2024-05-01T12:00:00.5Z", request_id="r-1", request_context=None, at_least_basis=None),
        with_(as_of_time_utc="0001-01-01T00:00:00.000000Z"),
        with_(as_of_time_utc="9999-12-31T23:59:59.999999Z", request_context={"memo": "naïve"}),
        with_(
            feature_groups=EVERY,
            request_context={"amount": -5},
            kind="get_features_request",
            contract_version="ofp_public_contracts_v0",
        ),
        with_(at_least_basis=[{"stream_name": "s", "partition_id": "0000", "offset": 3}]),
        with_(extensions={"trace": ["t-1", 0.5, None]}),
        with_(feature_keys=[key(key_id=chr(34) + chr(92)), key("account", "a-0")]),
    ],
)
def test_ordinary_requests_take_the_short_way(body: dict[str, Any]) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode()
    ask(raw)
    assert QuestionReader(small_registry(), ContextPins(**PINS), LIMITS).plain(raw) is not None
    twice = raw[:-1] + b', "as_of_time_utc": "2024-05-01T12:00:01Z"}'
    assert ask(raw + b" ").keys == ask(raw).keys
    assert refusal(twice).reason is Reason.MALFORMED_JSON
    for odd in (b"\xef\xbb\xbf" + raw, raw + b"x", raw[:-1], raw.replace(b"Z", b"z")):
        assert refusal(odd).code is ErrorCode.INVALID_REQUEST
