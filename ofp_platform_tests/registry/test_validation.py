"""Every refusal of a pack names file, line and field; all of them come at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.chunk_codec import pack as pack_chunk
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, load_pack_file, pack_digest, shipped_pack
from ofp_platform.registry.pack_text import PackError, PackErrors

HEAD = """\
pack_id: example
revision: 1
events:
  payment:
    keys: {account: account_id, merchant: merchant_id}
    fields: {amount_minor: integer, status: string, online: boolean, merchant_id: string}
  login:
    keys: {device: device_id}
    fields: {amount_minor: string}
  refund:
    keys: {account: account_id}
    fields: {status: string}
groups:
  - name: g
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {name: ok, aggregation: count, events: [payment], window: 1h}
"""
FEATURE_LINE = HEAD.count("\n") + 1


def errors_of(text: str, file: str = "bad.yaml") -> list[str]:
    with pytest.raises(PackErrors) as caught:
        load_pack(text, file)
    return [str(error) for error in caught.value.errors]


def test_the_head_alone_is_valid() -> None:
    assert load_pack(HEAD).groups[0].features[0].name == "ok"


@pytest.mark.parametrize(
    ("feature", "field", "message"),
    [
        ("{name: x, aggregation: count, events: [payment], window: -1 s}", ".window", "'-1 s' is negative"),
        ("{name: x, aggregation: count, events: [payment], window: 0h}", ".window", "a window of 0 holds nothing"),
        ("{name: x, aggregation: count, events: [payment], window: 1 hour}", ".window", "'1 hour' is not a duration"),
        ("{name: x, aggregation: count, events: [payment], window: 30}", ".window", "must be a string such as '24h'"),
        ("{name: x, aggregation: count, events: [payment], window: 4000d}", ".window", "longer than 3660d"),
        ("{name: x, aggregation: count, events: [payment]}", ".window", "this field is required"),
        ("{name: x, aggregation: count, window: 1h}", ".events", "this field is required"),
        ("{name: x, aggregation: count, events: [], window: 1h}", ".events", "must have at least one entry"),
        ("{name: x, aggregation: count, events: [payment], window: 1h, delay: -5m}", ".delay", "'-5m' is negative"),
        ("{name: ok, aggregation: count, events: [payment], window: 2h}", ".name", "already has a feature 'ok'"),
        ("{name: X, aggregation: count, events: [payment], window: 2h}", ".name", "must match pattern"),
        ("{name: x, agregation: count, events: [payment], window: 1h}", ".agregation", "did you mean 'aggregation'?"),
        ("{name: x, aggregation: cuont, events: [payment], window: 1h}", ".aggregation", "did you mean 'count'?"),
        ("{name: x, aggregation: count, events: [paymnt], window: 1h}", ".events[0]", "did you mean 'payment'?"),
        ("{name: x, aggregation: count, events: [payment, payment], window: 1h}", ".events[1]", "is listed twice"),
        ("{name: x, aggregation: count, events: [login], window: 1h}", ".events[0]", "'login' routes no account key"),
        ("{name: x, aggregation: sum, events: [payment], window: 1h}", ".value", "sum needs the payload field"),
        ("{name: x, aggregation: count, events: [payment], value: status, window: 1h}", ".value", "has no value"),
        (
            "{name: x, aggregation: seconds_since_last, events: [payment], value: status, window: 1h}",
            ".value",
            "has no value",
        ),
        ("{name: x, aggregation: sum, events: [payment], value: status, window: 1h}", ".value", "sum needs integer"),
        (
            "{name: x, aggregation: last, events: [payment, login], value: amount_minor, window: 1h}",
            ".value",
            "'amount_minor' of payment is integer and of login string: a feature has one type",
        ),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: max, events: [payment], value: status},"
            " denominator: {aggregation: count, events: [payment]}}",
            ".numerator.value",
            "max in a ratio needs integer",
        ),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: count, events: [payment]},"
            " denominator: {aggregation: first, events: [payment], value: online}}",
            ".denominator.value",
            "first in a ratio needs integer",
        ),
        ("{name: x, aggregation: mean, events: [payment], value: online, window: 1h}", ".value", "mean needs integer"),
        (
            "{name: x, aggregation: distinct_count, events: [payment], value: online, window: 1h}",
            ".value",
            "needs integer or string",
        ),
        (
            "{name: x, aggregation: sum, events: [payment], value: amount_minr, window: 1h}",
            ".value",
            "did you mean 'amount_minor'?",
        ),
        (
            "{name: x, aggregation: sum, events: [payment, refund], value: amount_minor, window: 1h}",
            ".value",
            "event 'refund' declares no field 'amount_minor'",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {status: 5}, window: 1h}",
            ".where.status",
            "'status' of payment is string; a value here is of another type",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {amount_minor: true}, window: 1h}",
            ".where.amount_minor",
            "a value here is of another type",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {status: 1.5}, window: 1h}",
            ".where.status",
            "write a string, an integer or a boolean",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {status: []}, window: 1h}",
            ".where.status",
            "an empty list selects nothing",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {amount_minor: 9007199254740992}, window: 1h}",
            ".where.amount_minor",
            "within ±(2^53-1)",
        ),
        (
            "{name: x, aggregation: mean, events: [payment], value: amount_minor, window: 1h, scale: 13}",
            ".scale",
            "must be less than or equal to 12",
        ),
        (
            "{name: x, aggregation: mean, events: [payment], value: amount_minor, window: 1h, scale: -1}",
            ".scale",
            "must be greater than or equal to 0",
        ),
        ("{name: x, aggregation: count, events: [payment], window: 1h, scale: 2}", ".scale", "count is an integer"),
        ("{name: x, aggregation: ratio, window: 1h}", ".numerator", "a ratio needs it"),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: count, events: [payment]}}",
            ".denominator",
            "a ratio needs it",
        ),
        (
            "{name: x, aggregation: ratio, events: [payment], window: 1h,"
            " numerator: {aggregation: count, events: [payment]},"
            " denominator: {aggregation: count, events: [payment]}}",
            ".events",
            "of a ratio it is given in the numerator",
        ),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: ratio, events: [payment]},"
            " denominator: {aggregation: count, events: [payment]}}",
            ".numerator.aggregation",
            "not of ratios",
        ),
        (
            "{name: x, aggregation: ratio, numerator: {aggregation: count, events: [payment], window: 1h},"
            " denominator: {aggregation: count, events: [payment]}}",
            ".denominator",
            "required, here or in the feature",
        ),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: sum, events: [payment]},"
            " denominator: {aggregation: count, events: [payment]}}",
            ".numerator",
            "sum needs the payload field",
        ),
        (
            "{name: x, aggregation: ratio, window: 1h, numerator: {aggregation: count, events: [payment]},"
            " denominator: {aggregation: mean, events: [payment], value: amount_minor, scale: 2}}",
            ".denominator.scale",
            "a side of a ratio is not rounded",
        ),
        (
            "{name: x, aggregation: count, events: [payment], window: 1h, numerator: {aggregation: count, events: [payment]}}",
            ".numerator",
            "only a ratio has it, not count",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {status: 4111111111111111}, window: 1h}",
            ".where.status",
            "a raw identifier",
        ),
        (
            "{name: x, aggregation: count, events: [payment], where: {status: 4111-1111-1111-1111}, window: 1h}",
            ".where.status",
            "a raw identifier",
        ),
    ],
)
def test_a_wrong_feature_is_named_by_file_line_and_field(feature: str, field: str, message: str) -> None:
    found = errors_of(HEAD + f"      - {feature}\n", "packs/bad.yaml")
    place = f"packs/bad.yaml:{FEATURE_LINE}: groups[0].features[1]{field}"
    assert any(error.startswith(place) and message in error for error in found), found
    assert not any("4111" in error for error in found)


QUICK = "a pattern has no look-around, no reference to a group, and repeats no group: it must be quick for any text"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("revision: 1", "revision: 0", "bad.yaml:2: revision: must be greater than or equal to 1"),
        ("revision: 1", "revision: '1'", "bad.yaml:2: revision: must be an integer"),
        (
            "revision: 1",
            "revision: 1\nrevison: 2",
            "bad.yaml:3: revison: unknown field 'revison'; did you mean 'revision'?",
        ),
        ("revision: 1", "revision: 1\nrevision: 2", "bad.yaml:3: revision: written twice; first on line 2"),
        ("revision: 1\n", "", "bad.yaml:1: revision: this field is required"),
        ("  login:", "  Login:", "bad.yaml:7: events.Login: must match pattern '^[a-z][a-z0-9_.]{0,62}$'"),
        (
            "{device: device_id}",
            "{devise: device_id}",
            "bad.yaml:8: events.login.keys.devise: 'devise' is not one of these; did you mean 'device'?",
        ),
        (
            "{amount_minor: string}",
            "{amount_minor: strng}",
            "bad.yaml:9: events.login.fields.amount_minor: 'strng' is not one of these; did you mean 'string'?",
        ),
        (
            "{amount_minor: string}",
            "{device_id: integer}",
            "bad.yaml:9: events.login.fields.device_id: 'device_id' is the device key, hence a string, not integer",
        ),
        (
            "key_type: account",
            "key_type: terminal",
            "bad.yaml:16: groups[0].key_type: 'terminal' is not one of these; known: account, card, customer, device, merchant",
        ),
        (
            "version: v1",
            "version: latest",
            "bad.yaml:15: groups[0].version: a version names one content for good; there is no 'latest'",
        ),
        (
            "version: v1",
            "version: a b",
            "bad.yaml:15: groups[0].version: must match pattern '^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$'",
        ),
        (
            "version: v1",
            "version: 1.0",
            "bad.yaml:15: groups[0].version: must be a string such as 'v1' or '1.0', with its quotes",
        ),
        (
            "revision: 1",
            "revision: 1\nkey_patterns: {acount: 'a-[0-9]+'}",
            "bad.yaml:3: key_patterns.acount: 'acount' is not one of these; did you mean 'account'?",
        ),
        (
            "revision: 1",
            "revision: 1\nkey_patterns: {account: 'a-[0-9'}",
            "bad.yaml:3: key_patterns.account: not a regular expression: unterminated character set at position 2",
        ),
        ("revision: 1", "revision: 1\nkey_patterns: {account: '(a+)+'}", f"bad.yaml:3: key_patterns.account: {QUICK}"),
        ("revision: 1", "revision: 1\nkey_patterns: {account: '(?=a)a'}", f"bad.yaml:3: key_patterns.account: {QUICK}"),
        ("revision: 1", "revision: 1\nkey_patterns: {account: 5}", "bad.yaml:3: key_patterns.account: must be a string"),
        ("ttl_seconds: 60", "ttl_seconds: 0", "bad.yaml:17: groups[0].ttl_seconds: must be greater than or equal to 1"),
        ("ttl_seconds: 60", "ttl_seconds: 60.0", "bad.yaml:17: groups[0].ttl_seconds: must be an integer"),
    ],
)
def test_a_wrong_field_elsewhere(old: str, new: str, expected: str) -> None:
    assert old in HEAD
    assert expected in errors_of(HEAD.replace(old, new))


@pytest.mark.parametrize(
    ("lines", "field", "message"),
    [
        ("on_demand: [{name: ok, expression: '1'}]", "on_demand[0].name", "already has a feature 'ok' (features[0])"),
        ("on_demand: [{name: x, expression: okk + 1}]", "on_demand[0].expression", "did you mean 'ok'?"),
        ("on_demand: [{name: x, expression: request.a}]", "on_demand[0].expression", "request.a is not declared"),
        ("on_demand: [{name: x, expression: ok ** 2}]", "on_demand[0].expression", "the operator Pow is not allowed"),
        ("on_demand: [{name: x, expression: abs(ok)}]", "on_demand[0].expression", "a call is not allowed"),
        ("on_demand: [{name: x, expression: ok +}]", "on_demand[0].expression", "not an expression"),
        ("on_demand: [{name: x, expression: ok, scale: 13}]", "on_demand[0].scale", "less than or equal to 12"),
        ("request: {a: integer}", "request.a", "no on-demand feature reads request.a"),
        ("request: {a: float}", "request.a", "known: decimal, integer"),
    ],
)
def test_a_wrong_on_demand_part(lines: str, field: str, message: str) -> None:
    found = errors_of(HEAD + f"    {lines}\n")
    assert any(e.startswith(f"bad.yaml:{FEATURE_LINE}: groups[0].{field}") and message in e for e in found), found


def test_two_groups_of_one_name_and_version() -> None:
    group = HEAD[HEAD.index("  - name: g") :]
    assert f"bad.yaml:{FEATURE_LINE}: groups[1]: group g v1 is already groups[0]" in errors_of(HEAD + group)


def test_everything_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = HEAD.replace("revision: 1", "revison: 1").replace("ttl_seconds: 60", "ttl_seconds: -1") + (
        "      - {name: x, aggregation: count, events: [paymnt], window: 1h}\n"
        "      - {name: y, aggregation: sum, events: [payment], window: -1 s}\n"
    )
    found = errors_of(text)
    assert [error.split(": ")[0:2] for error in found] == [
        ["bad.yaml:1", "revision"],
        ["bad.yaml:2", "revison"],
        ["bad.yaml:17", "groups[0].ttl_seconds"],
        [f"bad.yaml:{FEATURE_LINE}", "groups[0].features[1].events[0]"],
        [f"bad.yaml:{FEATURE_LINE + 1}", "groups[0].features[2].window"],
    ]


@pytest.mark.parametrize("aggregation", ["first", "last", "min", "max"])
@pytest.mark.parametrize(("value", "value_type"), [("status", "string"), ("online", "boolean")])
def test_an_expression_reads_no_text_and_no_boolean(aggregation: str, value: str, value_type: str) -> None:
    feature = f"      - {{name: x, aggregation: {aggregation}, events: [payment], value: {value}, window: 1h}}\n"
    assert load_pack(HEAD + feature).groups[0].features[1].value == value
    on_demand = "    on_demand:\n      - {name: y, expression: ok + x}\n"
    (error,) = errors_of(HEAD + feature + on_demand)
    assert error == (
        f"bad.yaml:{FEATURE_LINE + 2}: groups[0].on_demand[0].expression: feature 'x' is a {value_type};"
        " an expression reads numbers only"
    )


@pytest.mark.parametrize(
    ("aggregation", "kind", "count"), [("sum", "integer", 251), ("distinct_count", "string", 125), ("last", "string", 31)]
)
def test_the_values_of_a_key_type_fit_in_a_chunk(aggregation: str, kind: str, count: int) -> None:
    def pack(number: int) -> str:
        fields = ", ".join(f"f{place}: {kind}" for place in range(number))
        lines = [
            f"      - {{name: x{place}, aggregation: {aggregation}, events: [payment], value: f{place}, window: 1h}}\n"
            for place in range(number)
        ]
        return HEAD.replace("{amount_minor: integer, ", "{amount_minor: integer, " + fields + ", ", 1) + "".join(lines)

    layout = compile_pack(load_pack(pack(count))).layouts["account"]
    assert len(pack_chunk(np.zeros((layout.column_count, 1), np.int64)))
    (error,) = errors_of(pack(count + 1))
    assert f"groups[0].features[{count + 1}].value: the values of key type account take more than 251 columns" in error


@pytest.mark.parametrize(("count", "accepted"), [(62, True), (63, False)])
def test_62_predicates_fit_in_the_mask(count: int, accepted: bool) -> None:
    lines = [
        f"      - {{name: f{i}, aggregation: count, events: [payment], where: {{amount_minor: {i}}}, window: 1h}}\n"
        for i in range(count - 1)  # the head has one of its own
    ]
    if accepted:
        assert len(load_pack(HEAD + "".join(lines)).groups[0].features) == count
    else:
        (error,) = errors_of(HEAD + "".join(lines))
        assert error.startswith(f"bad.yaml:{FEATURE_LINE + 61}: groups[0].features[62]: more than 62 different selections")


@pytest.mark.parametrize("value", ["'5500 0000 0000 0004'", "5500000000000004", "pays with 5500-0000-0000-0004 often"])
def test_a_raw_identifier_anywhere_is_refused_and_never_shown(value: str) -> None:
    found = errors_of(HEAD.replace("revision: 1", f"revision: 1\ndescription: {value}"))
    assert any(error.startswith("bad.yaml:3: description: a raw identifier") for error in found)
    assert not any("5500" in error for error in found)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(data=st.data(), name=st.sampled_from(SHIPPED_PACKS), wrong=anything)
def test_no_pack_makes_the_validator_stumble(data: st.DataObject, name: str, wrong: object) -> None:
    pack = shipped_pack(name).model_dump(mode="json", by_alias=True, exclude_none=True)
    target: Any = pack
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        deeper = target[key]
        if not isinstance(deeper, (dict, list)) or not deeper or data.draw(st.booleans()):
            break
        target = deeper
    target[key] = wrong
    text = json.dumps(pack)
    found: list[PackError] = []
    try:
        load_pack(text)
    except PackErrors as errors:
        found = errors.errors
    assert all(error.line >= 1 and error.message for error in found)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PackErrors, match=r"absent\.yaml:0: cannot be read: No such file"):
        load_pack_file(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"pack_id: caf\xe9\n")
    with pytest.raises(PackErrors, match=r"latin\.yaml:0: is not UTF-8 text"):
        load_pack_file(tmp_path / "latin.yaml")
    (tmp_path / "good.yaml").write_text(HEAD)
    assert load_pack_file(tmp_path / "good.yaml") == load_pack(HEAD)


MORE = {
    "a p of 1.5": ("quantile, p: 1.5, value: amount_minor", "features[1].p: p must be greater than 0 and at most 1"),
    "a p of 0": ("quantile, p: 0, value: amount_minor", "features[1].p: p must be greater than 0 and at most 1"),
    "a p of 0.0": ('quantile, p: "0.0", value: amount_minor', "features[1].p: p must be greater than 0 and at most 1"),
    "a p below 0": ("quantile, p: -0.5, value: amount_minor", "features[1].p: p must be greater than 0 and at most 1"),
    "a p of seven digits": ('quantile, p: "0.1234567", value: amount_minor', "with at most 6 digits, as in 0.95"),
    "a p that is true": ("quantile, p: true, value: amount_minor", "features[1].p: p must be greater than 0 and at most 1"),
    "a p that is a word": ("quantile, p: half, value: amount_minor", "features[1].p: p must be greater than 0 and at most 1"),
    "no p": ("quantile, value: amount_minor", "features[1].p: quantile needs it"),
    "a p of a median": ("median, p: 0.5, value: amount_minor", "features[1].p: median has no p; quantile has"),
    "a p of a count": ("count, p: 0.5", "features[1].p: count has no p; quantile has"),
    "a quantile of a text": ("quantile, p: 0.5, value: status", "'status' of payment is string; quantile needs integer"),
    "a median without a value": ("median", "features[1].value: median needs the payload field that it is of"),
    "a scale of a quantile": ("quantile, p: 0.5, value: amount_minor, scale: 2", "quantile is an integer and has no scale"),
    "a pair of one field": (
        "distinct_count, value: status, paired_with: status",
        "a pair is of two fields; this is the value itself",
    ),
    "a pair with an unknown field": ("distinct_count, value: status, paired_with: statut", "did you mean 'status'?"),
    "a pair with a boolean": (
        "distinct_count, value: status, paired_with: online",
        "paired_with: 'online' of payment is boolean; distinct_count needs integer or string",
    ),
    "a pair of a sum": ("sum, value: amount_minor, paired_with: status", "sum has no paired_with; distinct_count has"),
    "no condition": ("seconds_since_change", "features[1].condition: seconds_since_change needs it"),
    "an empty condition": ("seconds_since_change, condition: {}", "features[1].condition"),
    "a value of a change": ("seconds_since_change, value: online, condition: {online: true}", "counts events and has no value"),
    "a condition of another type": ("seconds_since_change, condition: {online: 1}", "'online' of payment is boolean"),
    "a condition of an unknown field": ("seconds_since_change, condition: {onlin: true}", "did you mean 'online'?"),
    "no n": ("last_n, value: status", "features[1].n: last_n needs it"),
    "an n of 0": ("last_n, n: 0, value: status", "features[1].n: a list has from 1 to 20 items: write an integer from 1 to 20"),
    "an n of 21": ("last_n, n: 21, value: status", "features[1].n: a list has from 1 to 20 items"),
    "an n that is true": ("last_n, n: true, value: status", "features[1].n: a list has from 1 to 20 items"),
    "an n that is a text": ('last_n, n: "3", value: status', "features[1].n: a list has from 1 to 20 items"),
    "an n of a last": ("last, n: 3, value: status", "features[1].n: last has no n; last_n has"),
    "a list without a value": ("last_n, n: 3", "features[1].value: last_n needs the payload field that it is of"),
    "a p of a list": ("last_n, n: 3, value: status, p: 0.5", "features[1].p: last_n has no p; quantile has"),
    "a scale of a list": ("last_n, n: 3, value: amount_minor, scale: 2", "last_n is a list and has no scale"),
    "no category": ("count_by, k: 3", "features[1].category: count_by needs it"),
    "no k": ("top_k, category: status", "features[1].k: top_k needs it"),
    "a k of 0": (
        "count_by, k: 0, category: status",
        "features[1].k: a list has from 1 to 20 items: write an integer from 1 to 20",
    ),
    "a k of 21": ("sum_by, k: 21, category: status, value: amount_minor", "features[1].k: a list has from 1 to 20 items"),
    "a k that is no integer": ("top_k, k: 2.0, category: status", "features[1].k: a list has from 1 to 20 items"),
    "a k of a last_n": ("last_n, n: 3, k: 3, value: status", "features[1].k: last_n has no k; top_k, count_by, sum_by has"),
    "an n of a top_k": ("top_k, n: 3, k: 3, category: status", "features[1].n: top_k has no n; last_n has"),
    "a category of a sum": (
        "sum, value: amount_minor, category: status",
        "features[1].category: sum has no category; top_k, count_by",
    ),
    "an unknown category": (
        "count_by, k: 3, category: statut",
        "features[1].category: event 'payment' declares no field 'statut'",
    ),
    "a value of a count_by": ("count_by, k: 3, category: status, value: online", "count_by counts events and has no value"),
    "no value of a sum_by": ("sum_by, k: 3, category: status", "features[1].value: sum_by needs the payload field that it is of"),
    "a sum_by of a text": (
        "sum_by, k: 3, category: online, value: status",
        "'status' of payment is string; sum_by needs integer",
    ),
    "a p of a top_k": ("top_k, k: 3, category: status, p: 0.5", "features[1].p: top_k has no p; quantile has"),
    "a condition of a count": ("count, condition: {online: true}", "count has no condition; seconds_since_change has"),
}


@pytest.mark.parametrize("case", MORE)
def test_what_few_aggregations_have_is_refused_by_name(case: str) -> None:
    feature, words = MORE[case]
    errors = errors_of(HEAD + f"      - {{name: f, aggregation: {feature}, events: [payment], window: 1h}}\n")
    assert any(words in error and error.startswith(f"bad.yaml:{FEATURE_LINE}: ") for error in errors), errors


def test_what_few_aggregations_have_is_given_on_the_sides_of_a_ratio() -> None:
    sides = (
        "numerator: {aggregation: quantile, p: 2, events: [payment], value: amount_minor},"
        " denominator: {aggregation: count, events: [payment]}"
    )
    feature = f"      - {{name: f, aggregation: ratio, window: 1h, {sides}}}\n"
    assert any("features[1].numerator.p: p must be greater than 0" in error for error in errors_of(HEAD + feature))
    errors = errors_of(HEAD + feature.replace("p: 2", "p: 0.5").replace("ratio, ", "ratio, p: 0.5, "))
    assert [error.partition(": ")[2] for error in errors] == [
        "groups[0].features[1].p: of a ratio it is given in the numerator and in the denominator"
    ]


def test_a_ratio_and_an_expression_read_no_list() -> None:
    side = "{{aggregation: {}, events: [payment], value: amount_minor}}"
    sides = f"numerator: {side.format('last_n, n: 3')}, denominator: {side.format('sum')}"
    errors = errors_of(HEAD + f"      - {{name: f, aggregation: ratio, window: 1h, {sides}}}\n")
    assert any("numerator.aggregation: a ratio divides numbers, and last_n is a list" in error for error in errors)
    feature = f"      - {{name: f, aggregation: ratio, n: 3, window: 1h, {sides.replace('last_n, n: 3', 'sum')}}}\n"
    assert any("features[1].n: a ratio is no list" in error for error in errors_of(HEAD + feature))
    newest = "      - {name: f, aggregation: last_n, n: 3, events: [payment], value: amount_minor, window: 1h}\n"
    on_demand = "    on_demand:\n      - {name: g, expression: f + 1}\n"
    assert [error.partition(": ")[2] for error in errors_of(HEAD + newest + on_demand)] == [
        "groups[0].on_demand[0].expression: feature 'f' is a list; an expression reads numbers only"
    ]


def test_how_a_p_is_written_is_no_part_of_the_digest() -> None:
    line = "      - {{name: f, aggregation: quantile, p: {}, events: [payment], value: amount_minor, window: 1h}}\n"
    assert len({pack_digest(load_pack(HEAD + line.format(p))) for p in ("0.5", '"0.50"', '".500000"', ".5")}) == 1
    assert pack_digest(load_pack(HEAD + line.format("0.5"))) != pack_digest(load_pack(HEAD + line.format("0.500001")))
    pair = "      - {{name: f, aggregation: distinct_count, value: {}, paired_with: {}, events: [payment], window: 1h}}\n"
    orders = [pair.format("status", "amount_minor"), pair.format("amount_minor", "status")]
    assert len({pack_digest(load_pack(HEAD + order)) for order in orders}) == 1
