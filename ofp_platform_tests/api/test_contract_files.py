"""The published schemas: committed as the models say, true to real objects, closed to wrong ones."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api import contract_files, examples
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.errors import ErrorCode, Reason

PUBLIC = "ofp_public_contracts_v0.schema.json"
ENVELOPE = "canonical_event_envelope_v0.schema.json"
PACK = "feature_pack_v0.schema.json"
EXAMPLES: dict[str, Callable[[], dict[str, Any]]] = {
    "GetFeaturesRequest": examples.request_example,
    "GetFeaturesResponse": examples.response_example,
}
SHOWN: dict[str, Callable[[], dict[str, Any]]] = {
    "ofp_snapshot_record_v0.schema.json": examples.snapshot_record_example,
    "ofp_feature_groups_v0.schema.json": examples.feature_groups_example,
    "ofp_catalogue_v0.schema.json": examples.catalogue_example,
    "ofp_apply_failures_v0.schema.json": examples.apply_failures_example,
    "ofp_explanation_v0.schema.json": examples.explanation_example,
    "ofp_health_v0.schema.json": examples.health_example,
}
DESIGN = Path(__file__).parent / "design_examples"
EVENT: dict[str, Any] = {
    "event_id": "evt-1",
    "event_type": "card_payment",
    "schema_version": "v1",
    "ts_utc": "2026-03-31T12:00:00.25Z",
    "scenario_id": "s",
    "run_id": "r",
    "manifest_fingerprint": "0" * 64,
    "parameter_hash": "1" * 64,
    "payload": {"account_id": "acc-1", "amount_minor": 12},
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((contract_files.CONTRACTS / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_committed_files_are_those_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert contract_files.main(["--check"]) == 0, capsys.readouterr().out


def test_shipped_profiles_validate_and_a_typo_does_not() -> None:
    from ruamel.yaml import YAML

    paths = sorted((Path(contract_files.__file__).parents[1] / "cli" / "profiles").glob("*.yaml"))
    assert paths
    for path in paths:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        validator("profile_v0.schema.json").validate(content)
        assert not validator("profile_v0.schema.json").is_valid({**content, "partitons": 4})


def test_the_index_names_every_file_and_no_other() -> None:
    files = {path.name for path in contract_files.CONTRACTS.glob("*.json")}
    rows = re.findall(
        r"^\| `([a-z0-9_.]+)` \|(.*)\|$", (contract_files.CONTRACTS / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert [name for name, _ in rows if rows.count((name, _)) > 1] == []
    assert files == set(contract_files.contract_schemas()) == {name for name, _ in rows}
    for name, cells in rows:
        assert all(cell.strip() for cell in cells.split("|")), name
        assert len(cells.split("|")) == 5, name
    rules = [cells.rpartition("|")[2].strip() for _, cells in rows]
    assert len(set(rules)) > len(rules) / 2, "one rule for all is no rule of each"


def test_check_shows_a_diff_and_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contract_files.main(["--directory", str(tmp_path)]) == 0
    old = (tmp_path / PUBLIC).read_text(encoding="utf-8")
    (tmp_path / PUBLIC).write_text(old.replace('"KeyType"', '"KindOfKey"'), encoding="utf-8")
    assert contract_files.main(["--check", "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"--- contracts/{PUBLIC}" in said
    assert '"title": "KeyType"' in said
    assert "make contracts" in said


def test_check_notices_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contract_files.main(["--check", "--directory", str(tmp_path)]) == 1
    assert f"+++ models/{ENVELOPE}" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXAMPLES)
def test_real_objects_validate(name: str) -> None:
    validator(PUBLIC).validate(EXAMPLES[name]())


@pytest.mark.parametrize("name", SHOWN)
def test_other_objects_of_the_service_validate(name: str) -> None:
    validator(name).validate(SHOWN[name]())


@pytest.mark.parametrize("path", sorted(DESIGN.glob("*.json")), ids=lambda path: path.name)
def test_examples_of_the_design_validate(path: Path) -> None:
    validator(PUBLIC).validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["snapshot", "provenance"])
def test_parts_with_a_kind_validate_alone(name: str) -> None:
    validator(PUBLIC).validate(examples.response_example()[name])


def test_errors_of_every_status_validate() -> None:
    for error in examples.error_examples().values():
        validator(PUBLIC).validate(error)


def test_the_lists_of_codes_and_reasons_are_closed() -> None:
    error = validator(PUBLIC).schema["$defs"]["ErrorResponse"]["properties"]
    assert error["reason"]["enum"] == [reason.value for reason in Reason]
    assert error["error_code"]["enum"] == [code.value for code in ErrorCode]


def test_every_object_of_the_boundary_has_a_definition() -> None:
    definitions = validator(PUBLIC).schema["$defs"]
    assert list(definitions) == [
        "ContextPins",
        "FeatureKey",
        "FeatureGroupRef",
        "FreshnessBlock",
        "InputBasis",
        "GraphVersion",
        "FeatureSnapshot",
        "FeatureProvenance",
        "GetFeaturesRequest",
        "GetFeaturesResponse",
        "ErrorResponse",
    ]
    for model in contract_files.NAMED_OBJECTS:
        assert {"kind", "contract_version"} <= set(definitions[model.__name__]["required"])


def _changed(example: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(example)
    *parents, last = path.split(".")
    node: Any = changed
    for part in parents:
        node = node[int(part)] if part.isdigit() else node[part]
    if value is ...:
        del node[last]
    else:
        node[int(last) if last.isdigit() else last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", ...),
        ("contract_version", "v1"),
        ("as_of_time_utc", ...),
        ("as_of_time_utc", "2026-03-31T12:00:00"),
        ("as_of_time_utc", "2026-03-31T12:00:00.123456789Z"),
        ("feature_keys", []),
        ("feature_keys.0.key_id", "has a space"),
        ("feature_keys.0.key_id", "x" * 129),
        ("feature_keys.0.key_type", "terminal"),
        ("feature_groups.0.group_version", "latest"),
        ("feature_groups.0.group_version", "1 0"),
        ("context_pins.manifest_fingerprint", "A BC"),
        ("context_pins.parameter_hash", "x" * 129),
        ("extensions", []),
        ("request_context.amount_minor", 1.5),
        ("at_least_basis.0.offset", None),
        ("unknown", 1),
    ],
)
def test_wrong_requests_do_not_validate(path: str, value: Any) -> None:
    assert not validator(PUBLIC).is_valid(_changed(examples.request_example(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "get_features_request"),
        ("provenance.feature_snapshot_hash", "0" * 63),
        ("snapshot.feature_snapshot_hash", ...),
        ("snapshot.context_pins", ...),
        ("provenance.input_basis", ...),
        ("provenance.graph_version", "g1"),
        ("provenance.posture.state", "PURPLE"),
        ("provenance.warnings.0.code", "OTHER"),
        ("snapshot.by_key.0.by_group.0.features.mean_amount_30d", 43.55),
        ("snapshot.by_key.0.by_group.0.features", [1]),
    ],
)
def test_wrong_responses_do_not_validate(path: str, value: Any) -> None:
    assert not validator(PUBLIC).is_valid(_changed(examples.response_example(), path, value))


def test_envelopes() -> None:
    check = validator(ENVELOPE)
    check.validate(EVENT)
    for path, value in [
        ("ts_utc", "2026-03-31T12:00:00+02:00"),
        ("ts_utc", 5),
        ("event_id", ""),
        ("event_type", "Card Payment"),
        ("run_id", ...),
        ("payload", []),
        ("seed", -1),
        ("extra", 1),
    ]:
        assert not check.is_valid(_changed(EVENT, path, value)), path


def test_shipped_packs_validate_and_a_typo_does_not() -> None:
    from ruamel.yaml import YAML

    check = validator(PACK)
    packs = Path(contract_files.__file__).parents[1] / "registry" / "packs"
    found = sorted(packs.glob("*.yaml"))
    assert len(found) >= 2
    for path in found:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        check.validate(content)
        content["groups"][0]["ttl_secs"] = content["groups"][0].pop("ttl_seconds")
        assert not check.is_valid(content)


def test_the_examples_speak_of_groups_that_ship() -> None:
    groups = {(g.name, g.version): g for g in shipped_pack("card_payments").groups}
    for key in examples.response_example()["snapshot"]["by_key"]:
        for shown in key["by_group"]:
            group = groups[shown["group_name"], shown["group_version"]]
            names = [f.name for f in group.features] + [f.name for f in group.on_demand]
            assert sorted(names) == sorted(shown["features"])
