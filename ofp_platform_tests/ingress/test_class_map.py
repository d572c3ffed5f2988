"""The class map: what a pack implies, what a file says, and which payloads pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ofp_platform.ingress.class_map import ClassMap, ClassMapError, class_map_in_force, class_map_of, load_class_map
from ofp_platform.ingress.gate import Gate, Passed, SetAside
from ofp_platform.log.admission import Admission
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.admission_receipt import QuarantineReason
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import ClassMapRef, ProfileError, load_profile
from ofp_platform_tests.oracle.simulated_log import profile, write_profile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ingress.md"
PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
PACK = shipped_pack("card_payments")
CARD = "4111111111111111"


def content(**changed: Any) -> dict[str, Any]:
    """What the pack implies, with a schema for the payload of a payment."""
    wire = class_map_of(PACK, has_context=False).wire()
    schema = {
        "type": "object",
        "required": ["account_id", "amount_minor"],
        "properties": {
            "amount_minor": {"type": "integer", "minimum": 0},
            "lines": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}},
        },
        "patternProperties": {"^x_": {"type": "integer"}},
    }
    wire["events"]["card_payment"]["payload_schemas"] = {"v1": schema}
    return {**wire, **changed}


def written(folder: Path, value: Any) -> Path:
    path = folder / "classes.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(value, file)
    return path


def test_a_map_without_schemas_is_stored_as_it_always_was() -> None:
    implied = class_map_of(PACK, has_context=True)
    assert implied.digest == digest_of(implied.wire())
    assert set(implied.wire()) == {"kind", "contract_version", "events"}
    assert set(implied.wire()["events"]["card_payment"]) == {"event_class", "schema_versions", "stream"}
    assert ClassMap.model_validate_json(implied.stored()) == implied


def payment(**payload: Any) -> dict[str, Any]:
    head = {"event_id": "e-1", "event_type": "card_payment", "schema_version": "v1", "ts_utc": "2026-01-01T00:00:00Z"}
    return {**head, **PINS.wire(), "payload": {"account_id": "a", "amount_minor": 5, **payload}}


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ({}, None),
        ({"lines": ["a", "b"], "x_any": 3}, None),
        ({"amount_minor": -1}, "payload.amount_minor: is not as the schema of card_payment v1 says (minimum)"),
        ({"amount_minor": "5"}, "payload.amount_minor: is not as the schema of card_payment v1 says (type)"),
        ({"lines": ["a", "B"]}, "payload.lines.1: is not as the schema of card_payment v1 says (pattern)"),
        ({"amount_minor": True}, "payload.amount_minor: is not as the schema of card_payment v1 says (type)"),
        # a name that somebody else chose is not shown
        ({"x_ 1": "text"}, "payload: is not as the schema of card_payment v1 says (type)"),
    ],
)
def test_a_payload_is_held_to_its_schema_and_never_shown(payload: dict[str, Any], detail: str | None) -> None:
    gate = Gate(PINS, ClassMap.model_validate(content()), Admission("payload.account_id"), None)
    (verdict,) = gate.examine([payment(**payload)])
    if detail is None:
        assert isinstance(verdict, Passed)
    else:
        assert isinstance(verdict, SetAside)
        assert (verdict.reason, verdict.detail) == (QuarantineReason.PAYLOAD_SCHEMA, detail)


def test_a_missing_field_and_what_comes_first() -> None:
    gate = Gate(PINS, ClassMap.model_validate(content()), Admission("payload.account_id"), None)
    short, card = payment(), payment(amount_minor=CARD)
    del short["payload"]["amount_minor"]
    missing, raw = gate.examine([short, card])
    assert isinstance(missing, SetAside)
    assert missing.detail == "payload: is not as the schema of card_payment v1 says (required)"
    assert isinstance(raw, SetAside)  # a card number is one, whatever a schema says
    assert raw.reason is QuarantineReason.RAW_IDENTIFIER
    assert CARD not in raw.detail
    other_type, other_pins = gate.examine([payment() | {"event_type": "unknown"}, payment() | {"run_id": "other"}])
    assert isinstance(other_type, SetAside)
    assert other_type.reason is QuarantineReason.UNKNOWN_EVENT_TYPE
    assert isinstance(other_pins, SetAside)
    assert other_pins.reason is QuarantineReason.RUN_NOT_ACTIVE


def test_a_profile_names_a_file_by_its_digest(tmp_path: Path) -> None:
    plain = profile(tmp_path)
    path = written(tmp_path, content())
    digest = load_class_map(path).digest
    declared = load_profile(write_profile(tmp_path, class_map={"file": "classes.yaml", "digest": digest}))
    assert declared.class_map == ClassMapRef(file=str(path), digest=digest)
    assert class_map_in_force(declared, PACK).validators
    # another map is another run, and another policy, wherever the file lies; without one, both are as they always were
    assert declared.run_config_digest != plain.run_config_digest
    assert declared.policy["class_map"] == digest
    assert "class_map" not in plain.policy
    moved = declared.model_copy(update={"class_map": ClassMapRef(file="elsewhere.yaml", digest=digest)})
    assert (moved.run_config_digest, moved.policy_rev) == (declared.run_config_digest, declared.policy_rev)
    written(tmp_path, content(partition_key="payload.account_id"))
    with pytest.raises(ClassMapError, match="the profile names the new one"):
        class_map_in_force(declared, PACK)
    path.unlink()
    with pytest.raises(ClassMapError, match="No such file"):
        class_map_in_force(declared, PACK)
    with pytest.raises(ProfileError, match=r"class_map\.digest"):
        load_profile(write_profile(tmp_path, class_map={"file": "classes.yaml", "digest": "latest"}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"partition_key": "payload.card_id"}, "partition_key: the profile says payload.account_id"),
        ({"events": {"card_payment": content()["events"]["card_payment"]}}, "events: lacks fraud_report, which the pack"),
        (
            {"events": content()["events"] | {"fraud_report": content()["events"]["fraud_report"] | {"event_class": "other"}}},
            "events.fraud_report: the pack card_payments says class fraud_report of traffic",
        ),
    ],
)
def test_a_map_that_contradicts_pack_or_profile_is_refused(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    path = written(tmp_path, content(**changed))
    declared = profile(tmp_path).model_copy(update={"class_map": ClassMapRef(file=str(path), digest=load_class_map(path).digest)})
    with pytest.raises(ClassMapError, match=re.escape(says)):
        class_map_in_force(declared, PACK)


def with_schema(schema: Any, version: str = "v1") -> dict[str, Any]:
    value = content()
    value["events"]["card_payment"]["payload_schemas"] = {version: schema}
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (with_schema({"type": "nothing"}), "events.card_payment.payload_schemas.v1: "),
        (with_schema({"$ref": "http://127.0.0.1:9/schema"}), "events.card_payment.payload_schemas.v1: "),
        (with_schema({"$ref": "file:///etc/passwd"}), "events.card_payment.payload_schemas.v1: "),
        (with_schema({"properties": {"a": {"pattern": "(?=a)b"}}}), "events.card_payment.payload_schemas.v1: "),
        (with_schema({}, "v7"), "payload_schemas names v7, which is not among schema_versions"),
        (with_schema({"minimum": float("nan")}), "not I-JSON"),
        ({**content(), "kind": "other"}, "kind: "),
        ([], "the file: "),
    ],
)
def test_a_file_that_is_wrong_is_told_with_its_place(tmp_path: Path, value: Any, says: str) -> None:
    path = written(tmp_path, value)
    with pytest.raises(ClassMapError) as refused:
        load_class_map(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert says in str(refused.value)
    assert "root:" not in str(refused.value)


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("kind: [\n", encoding="utf-8")
    with pytest.raises(ClassMapError, match=r"classes\.yaml:2: not YAML"):
        load_class_map(path)


def test_the_page_shows_a_map_and_its_digest(tmp_path: Path) -> None:
    shown, reference = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "classes.yaml"
    path.write_text(shown, encoding="utf-8")
    assert YAML(typ="safe").load(reference)["class_map"] == {"file": "classes.yaml", "digest": load_class_map(path).digest}
