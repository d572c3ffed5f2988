"""Reading intents: equal ones are equal however written, and every wrong one is refused in words with its field."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ofp_platform.offline.requests.intent_file import load_intent_file, parse_intent, read_intent
from ofp_platform.offline.requests.intent_source import MAX_CHARACTERS
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, ForensicRebuild, ParityRebuild, intent_wire, request_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform_tests.oracle.intents import DATASET, FORENSIC, PARITY, changed

CARD_NUMBER = "4111111111111111"
GRID: dict[str, Any] = {
    "kind": "per_grid",
    "key_type": "account",
    "from_utc": "2026-01-01T00:00:00Z",
    "to_utc": "2026-01-02T00:00:00Z",
    "step_seconds": 3600,
}


def refusal(data: Any) -> BuildRefused:
    with pytest.raises(BuildRefused) as caught:
        read_intent(data if isinstance(data, str) else json.dumps(data))
    return caught.value


def as_yaml(data: Any) -> str:
    stream = StringIO()
    yaml = YAML(typ="safe")
    yaml.dump(json.loads(json.dumps(data)), stream)
    return stream.getvalue()


def shuffled(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], draw) for name in draw(st.permutations(sorted(value)))}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@given(st.sampled_from([DATASET, PARITY, FORENSIC]), st.data())
def test_the_request_id_does_not_depend_on_how_it_is_written(data: dict[str, Any], draw: st.DataObject) -> None:
    asked = request_id(parse_intent(data))
    other = shuffled(data, draw.draw)
    indent = draw.draw(st.sampled_from([None, 1, 7]))
    assert request_id(read_intent(json.dumps(other, indent=indent))) == asked
    assert request_id(read_intent(f"\n  {json.dumps(other, ensure_ascii=False)} \n")) == asked
    assert request_id(read_intent(as_yaml(other))) == asked


def test_what_means_the_same_has_the_same_request_id() -> None:
    asked = request_id(parse_intent(DATASET))
    same = changed(DATASET, note="for Tuesday", submitted_by="someone")
    same["label"]["as_of_utc"] = "2026-01-02T18:00:00.000Z"
    same["contract_version"] = "v0"
    same["supersedes"] = None
    assert request_id(parse_intent(same)) == asked
    for name, value in [("dataset_name", "other"), ("purpose", "analysis"), ("as_of_basis", "event_time")]:
        assert request_id(parse_intent(changed(DATASET, **{name: value}))) != asked


def test_yaml_as_a_person_writes_it() -> None:
    text = as_yaml(DATASET).replace("'2026-01-02T18:00:00Z'", "2026-01-02T18:00:00Z")
    assert "as_of_utc: 2026-01-02T18:00:00Z" in text
    assert read_intent(text) == parse_intent(DATASET)


def test_kinds() -> None:
    assert isinstance(parse_intent(DATASET), DatasetBuild)
    assert isinstance(parse_intent(PARITY), ParityRebuild)
    assert isinstance(parse_intent(FORENSIC), ForensicRebuild)
    for data in (DATASET, PARITY, FORENSIC):
        intent = parse_intent(data)
        assert parse_intent(intent_wire(intent)) == intent


WRONG: list[tuple[str, Any, BuildReason, str]] = [
    ("kind", "ofp_intent", BuildReason.INVALID_INTENT, "kind"),
    ("contract_version", "v1", BuildReason.INVALID_INTENT, "contract_version"),
    ("intent", "train_model", BuildReason.INVALID_INTENT, "intent"),
    ("intent", ..., BuildReason.INVALID_INTENT, "intent"),
    ("run_facts_ref", ..., BuildReason.INVALID_INTENT, "run_facts_ref"),
    ("run_facts_ref", "", BuildReason.INVALID_INTENT, "run_facts_ref"),
    ("stream_name", "a b", BuildReason.INVALID_INTENT, "stream_name"),
    ("context_pins.run_id", ..., BuildReason.INVALID_INTENT, "context_pins.run_id"),
    ("context_pins.parameter_hash", "A B C", BuildReason.INVALID_INTENT, "context_pins.parameter_hash"),
    ("dataset_name", "Fraud Set", BuildReason.INVALID_INTENT, "dataset_name"),
    ("purpose", "fun", BuildReason.INVALID_INTENT, "purpose"),
    ("as_of_basis", ..., BuildReason.INVALID_INTENT, "as_of_basis"),
    ("as_of_basis", "latest", BuildReason.INVALID_INTENT, "as_of_basis"),
    ("policy.revision", "1", BuildReason.INVALID_INTENT, "policy.revision"),
    ("policy.revision", 1.5, BuildReason.INVALID_INTENT, "policy.revision"),
    ("policy.revision", 0, BuildReason.INVALID_INTENT, "policy.revision"),
    ("policy.revision", 2**60, BuildReason.INVALID_INTENT, "policy.revision"),
    ("feature_pack.digest", "00", BuildReason.INVALID_INTENT, "feature_pack.digest"),
    ("feature_groups", [], BuildReason.INVALID_INTENT, "feature_groups"),
    ("feature_groups.0.group_version", "latest", BuildReason.INVALID_INTENT, "feature_groups.0.group_version"),
    ("feature_groups.1", DATASET["feature_groups"][0], BuildReason.INVALID_INTENT, "feature_groups.1"),
    ("replay.select", "everything", BuildReason.INVALID_INTENT, "replay.select"),
    ("replay.select", ..., BuildReason.INVALID_INTENT, "replay.select"),
    ("replay", None, BuildReason.INVALID_INTENT, "replay"),
    ("replay.from_utc", "2026-01-01", BuildReason.INVALID_INTENT, "replay.from_utc"),
    ("replay.from_utc", "2026-01-01T00:00:60Z", BuildReason.INVALID_INTENT, "replay.from_utc"),
    ("replay.from_utc", 17, BuildReason.INVALID_INTENT, "replay.from_utc"),
    ("replay.to_utc", "2025-12-31T00:00:00Z", BuildReason.BASIS_UNRESOLVED, "replay.to_utc"),
    ("replay.to_utc", "2026-01-01T00:00:00Z", BuildReason.BASIS_UNRESOLVED, "replay.to_utc"),
    ("scope.kind", "per_day", BuildReason.INVALID_INTENT, "scope.kind"),
    ("scope.event_types", [], BuildReason.INVALID_INTENT, "scope.event_types"),
    ("scope.to_utc", "2025-01-01T00:00:00Z", BuildReason.INVALID_INTENT, "scope.to_utc"),
    ("scope.filters.0.one_of", [1.5], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("scope.filters.0.one_of", [2**53], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("scope.filters.0.one_of", [CARD_NUMBER], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("scope.filters.0.one_of", [int(CARD_NUMBER)], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("scope.filters.0.one_of", ["a\0b"], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("scope.filters.0.one_of", ["\ud800"], BuildReason.INVALID_INTENT, "scope.filters.0.one_of.0"),
    ("label", ..., BuildReason.LABEL_ASOF_MISSING, "label"),
    ("label.as_of_utc", ..., BuildReason.LABEL_ASOF_MISSING, "label.as_of_utc"),
    ("label.as_of_utc", None, BuildReason.LABEL_ASOF_MISSING, "label.as_of_utc"),
    ("label.as_of_utc", "soon", BuildReason.INVALID_INTENT, "label.as_of_utc"),
    ("label.maturity_seconds", -1, BuildReason.INVALID_INTENT, "label.maturity_seconds"),
    ("note", f"the case of {CARD_NUMBER}.", BuildReason.INVALID_INTENT, "note"),
    ("submitted_by", CARD_NUMBER, BuildReason.INVALID_INTENT, "submitted_by"),
    ("supersedes", "x", BuildReason.INVALID_INTENT, "supersedes"),
    ("unknown", 1, BuildReason.INVALID_INTENT, "unknown"),
    ("label.unknown", 1, BuildReason.INVALID_INTENT, "label.unknown"),
    (CARD_NUMBER, 1, BuildReason.INVALID_INTENT, "?"),
    ("a b", 1, BuildReason.INVALID_INTENT, "?"),
    ("scope", {**GRID, "to_utc": GRID["from_utc"]}, BuildReason.INVALID_INTENT, "scope.to_utc"),
    ("scope", {**GRID, "step_seconds": 0}, BuildReason.INVALID_INTENT, "scope.step_seconds"),
    ("scope", {**GRID, "key_type": "person"}, BuildReason.INVALID_INTENT, "scope.key_type"),
    ("scope", {**GRID, "key_ids": ["a", CARD_NUMBER]}, BuildReason.INVALID_INTENT, "scope.key_ids.1"),
    ("scope", GRID, BuildReason.INVALID_INTENT, "label"),
]


@pytest.mark.parametrize(("path", "value", "reason", "field"), WRONG, ids=lambda part: str(part)[:40].encode("ascii", "replace"))
def test_what_is_wrong_is_refused_with_its_field(path: str, value: Any, reason: BuildReason, field: str) -> None:
    wrong = copy.deepcopy(DATASET)
    *parents, last = path.split(".") if " " not in path else [path]
    node: Any = wrong
    for part in parents:
        node = node[int(part)] if part.isdigit() else node[part]
    if value is ...:
        del node[last]
    elif isinstance(node, list):
        node[int(last) :] = [value]
    else:
        node[last] = value
    found = refusal(wrong)
    assert (found.reason, found.field) == (reason, field), str(found)
    assert found.message
    assert CARD_NUMBER not in str(found)
    assert not found.retryable


def test_spans_are_checked() -> None:
    def spans(*partitions: dict[str, Any]) -> dict[str, Any]:
        return changed(
            DATASET, replay={"select": "offsets", "basis": {"stream_name": "card-payments", "partitions": list(partitions)}}
        )

    span = {"partition_id": "0000", "offset_kind": "exclusive_next", "start": 0, "next": 5}
    other = {**span, "partition_id": "0001"}
    parse_intent(spans(span, other))
    here = "replay.basis.partitions"
    for wrong, reason, field in [
        (spans({**span, "start": 6}, other), BuildReason.BASIS_UNRESOLVED, f"{here}.0.next"),
        (spans(span, {**other, "start": 6}), BuildReason.BASIS_UNRESOLVED, f"{here}.1.next"),
        (spans({**span, "start": -1}), BuildReason.INVALID_INTENT, f"{here}.0.start"),
        (spans({**span, "next": "5"}), BuildReason.INVALID_INTENT, f"{here}.0"),
        (spans({**span, "next": "five"}), BuildReason.INVALID_INTENT, f"{here}.0.next"),
        (spans({**span, "offset_kind": "inclusive"}), BuildReason.INVALID_INTENT, f"{here}.0.offset_kind"),
        (spans(other, span), BuildReason.INVALID_INTENT, "replay.basis"),
        (spans(span, span), BuildReason.INVALID_INTENT, "replay.basis"),
        (spans(), BuildReason.INVALID_INTENT, here),
    ]:
        found = refusal(wrong)
        assert (found.reason, found.field) == (reason, field), str(found)


def test_decisions_are_about_events_and_listed_once() -> None:
    wrong = changed(DATASET, scope=GRID, purpose="analysis", as_of_basis="decision")
    del wrong["label"]
    assert refusal(wrong).field == "as_of_basis"
    parse_intent({**wrong, "as_of_basis": "ingest_time"})
    assert refusal(changed(PARITY, decision_ids=["a", "b", "a"])).field == "decision_ids.2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an intent is an object"),
        ("[]", "an intent is an object"),
        ("just words", "an intent is an object"),
        ('{"intent": ', "not JSON: line 1"),
        ('{"intent": 1, "intent": 2}', "written twice"),
        ('{"note": NaN}', "no number of JSON"),
        ('{"seed": ' + "9" * 5000 + "}", "a number is too long"),
        ("intent: 1\nintent: 2", "line 2: a field is written twice"),
        ("intent: [1", "not YAML: line"),
        ("intent: *there", "YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("intent: !!python/object:os.system {}", "YAML"),
        ("intent: !!binary aGk=", "a value must be"),
        ("intent: !!int abc", "not YAML"),
        ("1: 2", "a field name must be a text"),
        ("intent: \x07", "not YAML"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 5_000 + "]" * 5_000, "nested too deeply"),
        (" " * (MAX_CHARACTERS + 1), "longer than"),
    ],
    ids=range(19),
)
def test_what_is_no_intent_at_all(text: str, says: str) -> None:
    found = refusal(text)
    assert found.reason is BuildReason.INVALID_INTENT
    assert says in found.message


def test_several_mistakes_are_named_at_once() -> None:
    found = refusal(changed(DATASET, purpose="fun", as_of_basis="x"))
    assert "also wrong: " in found.message
    assert {found.field, found.message.partition("also wrong: ")[2].rstrip(")")} == {"purpose", "as_of_basis"}


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "intent.json"
    path.write_text("\ufeff" + json.dumps(DATASET), encoding="utf-8")
    assert load_intent_file(path) == parse_intent(DATASET)
    path.write_bytes(b"\xff\xfe")
    for wrong, says in [(path, "not UTF-8"), (tmp_path, "directory"), (tmp_path / "none", "No such file")]:
        with pytest.raises(BuildRefused, match=says) as caught:
            load_intent_file(wrong)
        assert caught.value.reason is BuildReason.INVALID_INTENT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(DATASET)) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from([DATASET, PARITY, FORENSIC]),
    st.dictionaries(st.sampled_from(sorted({*DATASET, *PARITY, *FORENSIC})), JSON, max_size=3),
)
def test_nothing_but_a_refusal_ever_comes_out(data: dict[str, Any], changes: dict[str, Any]) -> None:
    with contextlib.suppress(BuildRefused):
        intent = read_intent(json.dumps({**data, **changes}, allow_nan=True))
        assert request_id(parse_intent(intent_wire(intent))) == request_id(intent)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_nor_of_any_text(text: str) -> None:
    with pytest.raises(BuildRefused):
        read_intent(text)
