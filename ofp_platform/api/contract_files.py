"""Writes the public schemas in contracts/ from the models: `python -m ofp_platform.api.contract_files [--check]`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ofp_platform.api.feast_questions import FeastAnswer, FeastQuestion
from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.registry.models import pack_schema
from ofp_platform.vocabulary.admission_receipt import AdmissionAnswer, AdmissionBatch, AdmissionReceipt
from ofp_platform.vocabulary.apply_failures import ApplyFailures
from ofp_platform.vocabulary.catalogue import Catalogue
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.explanation import Explanation
from ofp_platform.vocabulary.health_history import HealthHistory
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import EntityProfile, IdentityLinkPayload
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOutcome, ActionRecord
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
from ofp_platform.vocabulary.loop.action_requests import ActionList, ActionSettlementAsk
from ofp_platform.vocabulary.loop.audit import AuditLeaf, AuditProof, CoSignature, TreeHead
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleMessage
from ofp_platform.vocabulary.loop.bundle_views import BundleHistory, BundlesInForce
from ofp_platform.vocabulary.loop.case import CaseEntryConflict
from ofp_platform.vocabulary.loop.case_requests import Case, CaseEntryAsk, CaseList, CaseReceipt, CaseTriggerAsk
from ofp_platform.vocabulary.loop.challenger_report import ChallengerReport
from ofp_platform.vocabulary.loop.decision_record import DecisionList, DecisionReceipt, DecisionRecord
from ofp_platform.vocabulary.loop.eval_report import EvalReport, TrainRequest
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation
from ofp_platform.vocabulary.loop.posture import PostureChange, PostureHold, PostureMessage, PostureRelease, PostureView
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.build_intent import INTENT
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_receipt import STAGE_CONTENTS
from ofp_platform.vocabulary.offline.build_run import BuildReceipt, BuildRun
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.governance_fact import FACT, GovernanceMessage
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion, LabelAssertions, LabelReceipt
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage
from ofp_platform.vocabulary.offline.overviews import (
    BuildList,
    BuildProgress,
    DatasetList,
    ParityList,
    ParityReport,
    PublishedDataset,
)
from ofp_platform.vocabulary.offline.parity_record import Correction, ParityResult, RunParityRequest
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot
from ofp_platform.vocabulary.offline.reconciliation import Reconciliation
from ofp_platform.vocabulary.offline.run_facts import RunCheckEvidence, RunFacts
from ofp_platform.vocabulary.pack_operations import PackOperations
from ofp_platform.vocabulary.pack_plan import PackPlan
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import ControlPayload, RunAsk, RunAskAnswer, RunPlan, RunRecord, RunRequest, RunStatus
from ofp_platform.vocabulary.serving import (
    ErrorResponse,
    FeatureGroups,
    FeatureProvenance,
    FeatureSnapshot,
    GetFeaturesRequest,
    GetFeaturesResponse,
    Health,
    OfflineErrorResponse,
    SnapshotRecord,
)
from ofp_platform.vocabulary.snapshot_set import SnapshotSetIndex
from ofp_platform.vocabulary.world import WorldManifest, WorldSeal

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONTRACTS = Path(__file__).parents[2] / "contracts"
NAMED_OBJECTS: tuple[type[BaseModel], ...] = (
    GetFeaturesRequest,
    GetFeaturesResponse,
    FeatureSnapshot,
    FeatureProvenance,
    ErrorResponse,
)
SHOWN_OBJECTS: tuple[type[BaseModel], ...] = (
    SnapshotRecord,
    Health,
    FeatureGroups,
    Catalogue,
    EntityProfile,
    Explanation,
    ApplyFailures,
    FeastQuestion,
    FeastAnswer,
)
OVERVIEWS: dict[type[BaseModel], str] = {
    BuildList: "Builds v0",
    BuildProgress: "Stages of a build v0",
    ParityList: "Comparisons v0",
    ParityReport: "Comparison by day and group v0",
    DatasetList: "Published datasets v0",
    PublishedDataset: "Published dataset v0",
    PackOperations: "Operations that put packs live v0",
    BundleHistory: "Steps of bundles v0",
    BundlesInForce: "Bundles in force v0",
    PostureView: "Posture in force v0",
    PostureHold: "Mode to be held v0",
    PostureRelease: "Mode to be released v0",
    HealthHistory: "Health over time v0",
}
"""Lists that are shown, and the titles of their schemas."""
CASES: dict[type[BaseModel], str] = {
    Case: "Case v0",
    CaseList: "Queue of cases v0",
    CaseReceipt: "Receipt of an entry of a case v0",
    CaseTriggerAsk: "Trigger of a case v0",
    CaseEntryAsk: "Entry of a case as it is asked for v0",
    CaseEntryConflict: "Entry of a case that came again with other content v0",
}
"""What crosses the boundary about cases, and the titles of the schemas."""
ACTIONS: dict[type[BaseModel], str] = {
    ActionList: "Page of actions v0",
    ActionSettlementAsk: "Word of an operator about an action v0",
}
"""What crosses the boundary about actions beside the actions themselves, and the titles of the schemas."""
OFFLINE_OBJECTS: tuple[type[BaseModel], ...] = (
    RebuiltFeatureSnapshot,
    ParityResult,
    DatasetManifest,
    OfflineErrorResponse,
)
PUBLIC_NAMES = {Basis.__name__: "InputBasis"}
"""Names of models in contracts, where they differ from those of the code."""
OFFLINE_NAMES = {OfflineErrorResponse.__name__: "ErrorResponse"}
"""The same in the contract of the offline plane."""
OFFLINE_DEFINITIONS = (
    "ContextPins",
    "FeatureKey",
    "ReplayBasis",
    "AsOfSpec",
    "FeatureGroupRef",
    "FeatureGroupVersionSet",
    "RebuiltFeatureSnapshot",
    "ParityResult",
    "DatasetManifest",
    "ErrorResponse",
)
"""The definitions that the contract of the offline plane pins."""
SERVING_DEFINITIONS = (
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
)
"""The definitions that the public contract pins; parts that it does not name stand where they are used."""
_POINTER = "#/$defs/"
# as read, not as written: absent pins are left out on the wire
_MODE: Literal["validation"] = "validation"


@cache
def serving_definitions() -> dict[str, Any]:
    """The `$defs` of the serving boundary. Treat as read-only.

    Objects that stand alone name themselves, so `kind` and `contract_version` are required in them.
    """
    return _definitions(NAMED_OBJECTS + SHOWN_OBJECTS, PUBLIC_NAMES)


def _definitions(models: Sequence[type[BaseModel]], names: Mapping[str, str]) -> dict[str, Any]:
    """The definitions of models that name themselves, and of their parts, under their public names."""
    _, schema = models_json_schema([(model, _MODE) for model in models])
    definitions: dict[str, Any] = schema["$defs"]
    for model in models:
        definition = definitions[model.__name__]
        required_fields = set(definition["required"]) | {"kind", "contract_version"}
        definition["required"] = [name for name in definition["properties"] if name in required_fields]
    return _renamed(definitions, names)


def _renamed(definitions: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same definitions, and references to them, under other names."""

    def renamed_node(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: renamed_node(value) for key, value in node.items()}
        if isinstance(node, list):
            return [renamed_node(item) for item in node]
        if isinstance(node, str) and node.startswith(_POINTER):
            name = node.removeprefix(_POINTER)
            return _POINTER + names.get(name, name)
        return node

    return {names.get(name, name): renamed_node(definition) for name, definition in definitions.items()}


def pinned(definitions: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those definitions, in the order of `names`; definitions of other names stand where they are referred to."""

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).removeprefix(_POINTER)
        if not name or name in names:
            # what tells the branches apart names definitions, and is no part of JSON Schema
            return {key: inline(value) for key, value in node.items() if key != "discriminator"}
        return inline(definitions[name] | {key: value for key, value in node.items() if key != "$ref"})

    return {name: inline(definitions[name]) for name in names}


def serving_schema() -> dict[str, Any]:
    """The schema of everything on the serving boundary: one object, told apart by its `kind`."""
    return {
        "$schema": DIALECT,
        "$id": "urn:ofp:contracts:ofp_public_contracts:v0",
        "title": "OFP public contracts v0",
        "description": "Every object that crosses the serving boundary names itself by kind and contract_version.",
        "oneOf": [{"$ref": f"{_POINTER}{model.__name__}"} for model in NAMED_OBJECTS],
        "$defs": pinned(serving_definitions(), SERVING_DEFINITIONS),
    }


def offline_schema() -> dict[str, Any]:
    """The schema of everything that the offline plane publishes: one object, told apart by its `kind`."""
    definitions = _definitions((*OFFLINE_OBJECTS, ContextPins), OFFLINE_NAMES)
    return {
        "$schema": DIALECT,
        "$id": "urn:ofp:contracts:ofs_public_contracts:v0",
        "title": "OFS public contracts v0",
        "description": "Every object that the offline plane publishes names itself by kind and contract_version.",
        "oneOf": [{"$ref": f"{_POINTER}{OFFLINE_NAMES.get(model.__name__, model.__name__)}"} for model in OFFLINE_OBJECTS],
        "$defs": pinned(definitions, OFFLINE_DEFINITIONS),
    }


def envelope_schema() -> dict[str, Any]:
    """The schema of an event as a producer sends it."""
    head = {
        "$schema": DIALECT,
        "$id": "urn:ofp:contracts:canonical_event_envelope:v0",
        "title": "Canonical event envelope v0",
    }
    return head | {key: value for key, value in Envelope.model_json_schema().items() if key != "title"}


def profile_schema() -> dict[str, Any]:
    """The schema of a profile, as an operator writes it."""
    schema = Profile.model_json_schema(mode=_MODE)
    return {"$schema": DIALECT, "$id": "urn:ofp:contracts:profile:v0", **schema, "title": "Profile v0"}


def object_schema(model: type[BaseModel], name: str, title: str) -> dict[str, Any]:
    """The schema of one object that stands alone: it names itself, so `kind` and `contract_version` are required."""
    schema = model.model_json_schema(mode=_MODE)
    required_fields = {*schema["required"], "kind", "contract_version"}
    schema["required"] = [field for field in schema["properties"] if field in required_fields]
    return {"$schema": DIALECT, "$id": f"urn:ofp:contracts:{name}:v0", **schema, "title": title}


def intent_schema() -> dict[str, Any]:
    """The schema of a build intent: three kinds, told apart by `intent`."""
    schema = INTENT.json_schema(mode=_MODE)
    for branch in schema["oneOf"]:
        definition = schema["$defs"][branch["$ref"].rpartition("/")[2]]
        required_fields = {*definition["required"], "kind", "contract_version", "intent"}
        definition["required"] = [name for name in definition["properties"] if name in required_fields]
    return {"$schema": DIALECT, "$id": "urn:ofp:contracts:ofs_build_intent:v0", "title": "Build intent v0", **schema}


def receipt_schema() -> dict[str, Any]:
    """The schema of a stage's receipt in the run ledger: `stage` says which content it has."""
    receipt = BuildReceipt.model_json_schema(mode=_MODE)
    refs, contents = models_json_schema(
        [(model, _MODE) for model in dict.fromkeys(STAGE_CONTENTS.values())], ref_template=_POINTER + "{model}"
    )
    receipt["properties"]["stage"] = {"enum": list(STAGE_CONTENTS)}
    receipt["oneOf"] = [
        {"properties": {"stage": {"const": stage}, "content": refs[model, _MODE]}} for stage, model in STAGE_CONTENTS.items()
    ]
    head = {"$schema": DIALECT, "$id": "urn:ofp:contracts:ofs_build_receipt:v0"}
    return {**head, **receipt, "title": "Receipt of a stage v0", "$defs": contents["$defs"]}


def governance_schema() -> dict[str, Any]:
    """The schema of a governance fact: several, told apart by `fact`."""
    schema = FACT.json_schema(mode=_MODE)
    for branch in schema["oneOf"]:
        definition = schema["$defs"][branch["$ref"].removeprefix(_POINTER)]
        required_fields = {*definition["required"], "kind", "contract_version", "fact"}
        definition["required"] = [name for name in definition["properties"] if name in required_fields]
    return {"$schema": DIALECT, "$id": "urn:ofp:contracts:governance_fact:v0", "title": "Governance fact v0", **schema}


@cache
def record_definitions() -> dict[str, Any]:
    """The `$defs` of decisions and labels that those of the serving boundary and of builds lack."""
    definitions = _definitions(
        (DecisionRecord, DecisionReceipt, DecisionList, LabelAssertions, LabelAssertion, LabelReceipt), PUBLIC_NAMES
    )
    present = serving_definitions() | build_definitions()
    return {name: schema for name, schema in definitions.items() if name not in present}


@cache
def overview_definitions() -> dict[str, Any]:
    """The `$defs` of lists that the others lack."""
    present = serving_definitions() | build_definitions() | record_definitions()
    return {name: schema for name, schema in _definitions(tuple(OVERVIEWS), PUBLIC_NAMES).items() if name not in present}


@cache
def case_definitions() -> dict[str, Any]:
    """The `$defs` of cases that the others lack."""
    present = serving_definitions() | build_definitions() | record_definitions() | overview_definitions()
    return {name: schema for name, schema in _definitions(tuple(CASES), PUBLIC_NAMES).items() if name not in present}


@cache
def action_definitions() -> dict[str, Any]:
    """The `$defs` of actions that the others lack."""
    present = serving_definitions() | build_definitions() | record_definitions() | overview_definitions() | case_definitions()
    definitions = _definitions((ActionRecord, *ACTIONS), PUBLIC_NAMES)
    return {name: schema for name, schema in definitions.items() if name not in present}


@cache
def build_definitions() -> dict[str, Any]:
    """The `$defs` of asking for a build that those of the serving boundary lack, `BuildIntent` and `BuildRun` among them."""
    run, intent = object_schema(BuildRun, "ofs_build_run", "Run of a build v0"), intent_schema()
    definitions = run.pop("$defs") | intent.pop("$defs") | {"BuildRun": run, "BuildIntent": intent}
    for schema in (run, intent):
        # references are resolved against the innermost id
        del schema["$schema"], schema["$id"]
    public = _renamed(definitions, PUBLIC_NAMES)
    public_definitions = _definitions((OfflineErrorResponse, RebuiltFeatureSnapshot), PUBLIC_NAMES)
    return {name: schema for name, schema in (public | public_definitions).items() if name not in serving_definitions()}


def contract_schemas() -> dict[str, dict[str, Any]]:
    """File name to schema."""
    pack = pack_schema() | {"$schema": DIALECT, "$id": "urn:ofp:contracts:feature_pack:v0"}
    return {
        "ofp_public_contracts_v0.schema.json": serving_schema(),
        "ofs_public_contracts_v0.schema.json": offline_schema(),
        "profile_v0.schema.json": profile_schema(),
        "ofp_snapshot_record_v0.schema.json": object_schema(SnapshotRecord, "ofp_snapshot_record", "Snapshot record v0"),
        "ofp_health_v0.schema.json": object_schema(Health, "ofp_health", "Health v0"),
        "ofp_feature_groups_v0.schema.json": object_schema(FeatureGroups, "ofp_feature_groups", "Feature groups v0"),
        "ofp_catalogue_v0.schema.json": object_schema(Catalogue, "ofp_catalogue", "Catalogue v0"),
        "ieg_entity_profile_v0.schema.json": object_schema(EntityProfile, "ieg_entity_profile", "Entity v0"),
        "identity_link_v0.schema.json": object_schema(IdentityLinkPayload, "identity_link", "Payload of an identity link v0"),
        "ofp_apply_failures_v0.schema.json": object_schema(ApplyFailures, "ofp_apply_failures", "Apply failures v0"),
        "ofp_explanation_v0.schema.json": object_schema(Explanation, "ofp_explanation", "Explanation v0"),
        "canonical_event_envelope_v0.schema.json": envelope_schema(),
        "feature_pack_v0.schema.json": pack,
        "ofs_label_assertion_v0.schema.json": object_schema(LabelAssertion, "ofs_label_assertion", "Label assertion v0"),
        "df_decision_record_v0.schema.json": object_schema(DecisionRecord, "df_decision_record", "Decision record v0"),
        "df_decision_receipt_v0.schema.json": object_schema(DecisionReceipt, "df_decision_receipt", "Decision receipt v0"),
        "df_decision_list_v0.schema.json": object_schema(DecisionList, "df_decision_list", "Decision list v0"),
        "label_assertions_v0.schema.json": object_schema(LabelAssertions, "label_assertions", "Label assertions v0"),
        "label_receipt_v0.schema.json": object_schema(LabelReceipt, "label_receipt", "Label receipt v0"),
        "pack_plan_v0.schema.json": object_schema(PackPlan, "pack_plan", "Plan of a pack v0"),
        "run_facts_v0.schema.json": object_schema(RunFacts, "run_facts", "Run facts v0"),
        "run_request_v0.schema.json": object_schema(RunRequest, "run_request", "Request for a run v0"),
        "run_ask_v0.schema.json": object_schema(RunAsk, "run_ask", "Ask for a run v0"),
        "run_ask_answer_v0.schema.json": object_schema(RunAskAnswer, "run_ask_answer", "Answer to an ask for a run v0"),
        "run_plan_v0.schema.json": object_schema(RunPlan, "run_plan", "Plan of a run v0"),
        "run_record_v0.schema.json": object_schema(RunRecord, "run_record", "Record of an examination v0"),
        "run_status_v0.schema.json": object_schema(RunStatus, "run_status", "Status of a run v0"),
        "action_intent_v0.schema.json": object_schema(ActionIntent, "action_intent", "Intent of an action v0"),
        "action_outcome_v0.schema.json": object_schema(ActionOutcome, "action_outcome", "Outcome of an action v0"),
        "action_record_v0.schema.json": object_schema(ActionRecord, "action_record", "Action with its attempts v0"),
        "governance_message_v0.schema.json": object_schema(
            GovernanceMessage, "governance_message", "Governance fact on its stream v0"
        ),
        "action_policy_v0.schema.json": object_schema(ActionPolicy, "action_policy", "Action policy v0"),
        "posture_change_v0.schema.json": object_schema(PostureChange, "posture_change", "Change of posture v0"),
        "posture_message_v0.schema.json": object_schema(PostureMessage, "posture_message", "Change of posture on control v0"),
        "control_payload_v0.schema.json": object_schema(ControlPayload, "control_payload", "Payload of control v0"),
        "ofs_build_intent_v0.schema.json": intent_schema(),
        "ofs_build_plan_v0.schema.json": object_schema(BuildPlan, "ofs_build_plan", "Build plan v0"),
        "ofs_build_run_v0.schema.json": object_schema(BuildRun, "ofs_build_run", "Run of a build v0"),
        "ofs_archive_receipt_v0.schema.json": object_schema(ArchiveReceipt, "ofs_archive_receipt", "Archive receipt v0"),
        "ofs_correction_v0.schema.json": object_schema(Correction, "ofs_correction", "Correction v0"),
        "ofs_build_receipt_v0.schema.json": receipt_schema(),
        "ofs_reconciliation_v0.schema.json": object_schema(Reconciliation, "ofs_reconciliation", "Reconciliation v0"),
        "governance_fact_v0.schema.json": governance_schema(),
        "ofs_run_parity_v0.schema.json": object_schema(RunParityRequest, "ofs_run_parity", "Parity of a run v0"),
        "run_check_evidence_v0.schema.json": object_schema(RunCheckEvidence, "run_check_evidence", "Evidence of a check v0"),
        "ofp_snapshot_set_v0.schema.json": object_schema(SnapshotSetIndex, "ofp_snapshot_set", "Snapshot set v0"),
        "admission_receipt_v0.schema.json": object_schema(AdmissionReceipt, "admission_receipt", "Receipt of ingress v0"),
        "admission_answer_v0.schema.json": object_schema(AdmissionAnswer, "admission_answer", "Answer of ingress v0"),
        "admission_batch_v0.schema.json": object_schema(AdmissionBatch, "admission_batch", "Batch of ingress v0"),
        "class_map_v0.schema.json": object_schema(ClassMap, "class_map", "Class map v0"),
        "world_manifest_v0.schema.json": object_schema(WorldManifest, "world_manifest", "World manifest v0"),
        "world_seal_v0.schema.json": object_schema(WorldSeal, "world_seal", "World seal v0"),
        "audit_leaf_v0.schema.json": object_schema(AuditLeaf, "audit_leaf", "Leaf of the audit log v0"),
        "audit_tree_head_v0.schema.json": object_schema(TreeHead, "audit_tree_head", "Head of the audit log v0"),
        "audit_co_signature_v0.schema.json": object_schema(CoSignature, "audit_co_signature", "Co-signature of a head v0"),
        "audit_proof_v0.schema.json": object_schema(AuditProof, "audit_proof", "Proof of a record v0"),
        "model_lineage_v0.schema.json": object_schema(ModelLineage, "model_lineage", "Lineage of models v0"),
        "loop_reconciliation_v0.schema.json": object_schema(
            LoopReconciliation, "loop_reconciliation", "Reconciliation of the loop v0"
        ),
        "exact_model_v0.schema.json": object_schema(ExactModel, "exact_model", "Model in exact form v0"),
        "train_request_v0.schema.json": object_schema(TrainRequest, "train_request", "Request for a training v0"),
        "eval_report_v0.schema.json": object_schema(EvalReport, "eval_report", "Report on a model v0"),
        "challenger_report_v0.schema.json": object_schema(ChallengerReport, "challenger_report", "Report on a challenger v0"),
        "decision_bundle_v0.schema.json": object_schema(Bundle, "decision_bundle", "Bundle v0"),
        "bundle_event_v0.schema.json": object_schema(BundleMessage, "bundle_event", "Step of a bundle v0"),
        **{f"{_kind(model)}_v0.schema.json": object_schema(model, _kind(model), title) for model, title in OVERVIEWS.items()},
        **{
            f"{_kind(model)}_v0.schema.json": object_schema(model, _kind(model), title)
            for model, title in (CASES | ACTIONS).items()
        },
    }


def _kind(model: type[BaseModel]) -> str:
    """The name that objects of a model give themselves."""
    return str(model.model_fields["kind"].default)


def file_text(schema: dict[str, Any]) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def drift(directory: Path) -> str:
    """A unified diff from the files to the models; empty when they agree."""
    parts: list[str] = []
    for name, schema in contract_schemas().items():
        path = directory / name
        old = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        new = file_text(schema).splitlines(keepends=True)
        parts += difflib.unified_diff(old, new, f"contracts/{name}", f"models/{name}")
    return "".join(parts)


def write(directory: Path) -> None:
    """Write every schema file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in contract_schemas().items():
        (directory / name).write_text(file_text(schema), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 when --check found a difference."""
    parser = argparse.ArgumentParser(prog="python -m ofp_platform.api.contract_files", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail with a diff when the files are old")
    parser.add_argument("--directory", type=Path, default=CONTRACTS)
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.directory)
        return 0
    if difference := drift(options.directory):
        sys.stdout.write(difference)
        print("The schemas in contracts/ are not those of the models. Run `make contracts` and commit what it wrote.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
