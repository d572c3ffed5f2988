"""docs/intents.md: its example is an intent, and its list of reasons is the closed list."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment
from ofp_platform.offline.requests.feature_resolution import resolve_groups
from ofp_platform.offline.requests.intent_file import load_intent_file, read_intent
from ofp_platform.offline.requests.policies import BuildPolicies
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, intent_wire
from ofp_platform.vocabulary.offline.build_refusal import BuildReason

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "intents.md").read_text(encoding="utf-8")


def example() -> str:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_is_an_intent_of_the_demo_run(tmp_path: Path) -> None:
    path = tmp_path / "intent.yaml"
    path.write_text(example(), encoding="utf-8")
    intent = load_intent_file(path)
    assert isinstance(intent, DatasetBuild)
    profile = Environment(profile="demo").load_profile()
    assert (intent.context_pins, intent.stream_name) == (profile.context_pins, profile.stream_name)
    pack = shipped_pack(intent.feature_pack.pack_id)
    assert pack.revision == intent.feature_pack.revision
    assert len(resolve_groups(intent, compile_pack(pack))) == 2
    assert BuildPolicies().resolve(intent.policy).policy_id == "fraud_training"


def test_the_example_keeps_to_the_contract() -> None:
    schema = json.loads((ROOT / "contracts" / "ofs_build_intent_v0.schema.json").read_text(encoding="utf-8"))
    yaml = YAML(typ="safe", pure=True)
    yaml.constructor.yaml_constructors = {
        **yaml.constructor.yaml_constructors,
        "tag:yaml.org,2002:timestamp": lambda constructor, node: node.value,
    }
    check = Draft202012Validator(schema)
    written = yaml.load(example())
    check.validate(written)
    check.validate(intent_wire(read_intent(example())))
    assert not check.is_valid({**written, "as_of_basis": "latest"})


def test_the_page_explains_every_reason_once() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE) == [reason.value for reason in BuildReason]
