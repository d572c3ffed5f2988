"""Governance facts: builds that ended, datasets superseded, runs of Dagster that failed, ids adjudicated, packs put live,
records of ingress sent again, steps in the life of bundles, modes of deciding changed, policies taken up, actions settled
by hand, labels published, conflicts of the archive, what retention removed, keys of the audit log
handed on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, PolicyRev, Time
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.build_receipt import BuildOutcome
from ofp_platform.vocabulary.offline.build_refusal import Refusal
from ofp_platform.vocabulary.position import Basis, StreamName
from ofp_platform.vocabulary.posture_policy import Mode
from ofp_platform.vocabulary.serving import Count, Version


class _Fact(Model):
    kind: Literal["governance_fact"] = "governance_fact"
    contract_version: Version = "v0"

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")


class _BuildFact(_Fact):
    request_id: Digest
    intent: Literal["dataset_build", "parity_rebuild", "forensic_rebuild"]
    submitted_by: str | None
    attempts: Count
    publish_attempts: Count
    plan_digest: Digest | None = Field(description="null where the build failed before it was planned")
    reconciliation: str = Field(min_length=1, description="path of the reconciliation in the object store")
    dataset_name: Name | None = Field(description="null where the build is of no dataset")


class BuildCompleted(_BuildFact):
    """A build that is DONE."""

    fact: Literal["build_completed"] = "build_completed"
    outcome: BuildOutcome


class BuildFailed(_BuildFact):
    """A build that FAILED."""

    fact: Literal["build_failed"] = "build_failed"
    refusal: Refusal | None


class BuildSuperseded(_BuildFact):
    """A dataset in whose place another one was published."""

    fact: Literal["build_superseded"] = "build_superseded"
    outcome: BuildOutcome
    dataset_identity: Digest = Field(description="of the dataset that was superseded")
    superseded_by: Digest


class RunFailed(_Fact):
    """A run of Dagster that failed: of what, for which partitions, why."""

    fact: Literal["dagster_run_failed"] = "dagster_run_failed"
    run_id: str = Field(min_length=1)
    job_name: str
    partition: str | None
    partition_range: tuple[str | None, str | None] = Field(strict=False, description="first and last partition")
    backfill_id: str | None
    assets: tuple[str, ...] = Field(strict=False)
    error: str | None
    reasons: tuple[str, ...] = Field(strict=False, description="of each failed step")


class IdAdjudicated(_Fact):
    """An operator's decision about an event id that has several contents."""

    fact: Literal["id_adjudicated"] = "id_adjudicated"
    stream_name: StreamName
    context_pins: ContextPins
    adjudication: Adjudication
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    decided_at_utc: Time


class PackOperation(_Fact):
    """One step of putting a pack live beside another one, or of going back."""

    fact: Literal["pack_operation"] = "pack_operation"
    operation_id: Digest
    step: Literal["begun", "switched", "refused", "rolled_back"]
    plan_digest: Digest
    stream_name: StreamName
    context_pins: ContextPins
    from_projection: Count
    from_registry: Digest
    to_projection: Count
    to_registry: Digest
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    at_utc: Time
    records: Count = Field(default=0, description="folded by this step")
    milliseconds: Count = Field(default=0, description="of folding them, pauses left out")
    compared_groups: Count = 0
    compared_keys: Count = 0
    served_hash: Digest | None = Field(default=None, description="of all that was compared; equal on both sides")
    basis: Basis | None = Field(default=None, description="where the switch stands")
    kept_until_utc: Time | None = Field(default=None, description="when retention may remove the state of the former one")
    refusal: str | None = None


class QuarantineReplayed(_Fact):
    """A record of ingress that was in quarantine was sent through the door again, by an operator."""

    fact: Literal["quarantine_replayed"] = "quarantine_replayed"
    stream_name: StreamName
    context_pins: ContextPins
    quarantine_id: Count
    set_aside_for: QuarantineReason = Field(strict=False)
    batch_id: Count = Field(description="of the receipt that it got this time")
    outcome: AdmissionOutcome = Field(strict=False)
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    at_utc: Time


class BundleStepTaken(_Fact):
    """A step in the life of a bundle, as control says it."""

    fact: Literal["bundle_step"] = "bundle_step"
    stream_name: StreamName = Field(description="the stream of control")
    context_pins: ContextPins
    sequence: Count
    step: Literal["PUBLISHED", "APPROVED", "ACTIVATED", "ROLLED_BACK", "RETIRED"]
    bundle_name: Name
    bundle_digest: Digest
    scope: str | None = Field(description="environment/mode/slot, where the step is of one")
    replaces: Digest | None = Field(description="of the bundle that was in force there before")
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    at_utc: Time


class AuditKeyRotated(_Fact):
    """The audit log was handed on from one key to another. The head behind this fact is the last that the former key signs."""

    fact: Literal["audit_key_rotated"] = "audit_key_rotated"
    from_key_id: Digest = Field(description="an Ed25519 public key")
    to_key_id: Digest = Field(description="an Ed25519 public key")
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    at_utc: Time


class PostureChanged(_Fact):
    """The mode in force of who decides, or the reasons for it, changed: by signals, or by an operator who holds or releases."""

    fact: Literal["posture_changed"] = "posture_changed"
    context_pins: ContextPins
    sequence: Count
    message_id: Digest = Field(description="of the change, on control")
    former_mode: Annotated[Mode, Field(strict=False)]
    mode: Annotated[Mode, Field(strict=False)]
    held: bool
    reasons: tuple[str, ...] = Field(strict=False)
    actor: Identifier
    at_utc: Time


class ActionSettled(_Fact):
    """An operator said whether an action was done that nobody else knew of."""

    fact: Literal["action_settled"] = "action_settled"
    context_pins: ContextPins
    idempotency_key: Digest
    attempt: Annotated[int, Field(ge=1)]
    is_done: bool
    action_type: Name
    action_policy_rev: PolicyRev
    actor: Identifier
    reason: str = Field(min_length=1, max_length=1000)
    at_utc: Time


class PolicyInForce(_Fact):
    """A policy was taken up that is another than the one before, of a run: by executors, or by the door."""

    fact: Literal["policy_in_force"] = "policy_in_force"
    context_pins: ContextPins
    policy_kind: Literal["action_policy", "class_map"]
    rev: str = Field(min_length=1, description="the digest of the policy, with its revision where it has one")
    former_rev: str | None
    former_fact: Digest | None = Field(description="of the fact about the policy before")
    actor: str = Field(min_length=1, max_length=128, description="the database role that took it up")


class LabelsPublished(_Fact):
    """Assertions became part of the labels of a run, in one append."""

    fact: Literal["labels_published"] = "labels_published"
    context_pins: ContextPins
    first_sequence: Count
    next_sequence: Count = Field(description="behind the last of them")
    label_types: tuple[str, ...] = Field(strict=False)
    actor: str = Field(min_length=1, max_length=128, description="the principal who sent them, else the database role")


class ArchiveConflictFound(_Fact):
    """Log and archive have another content at positions of one segment: no training build takes that span."""

    fact: Literal["archive_conflict"] = "archive_conflict"
    stream_name: StreamName
    partition_id: str = Field(min_length=1)
    segment_path: str = Field(min_length=1)
    positions: tuple[str, ...] = Field(strict=False, min_length=1, description="the first of those that were found at once")
    position_count: Count
    actor: str = Field(min_length=1, max_length=128, description="the database role that compared")


class RecordsRemoved(_Fact):
    """Retention let something of a store go, for good."""

    fact: Literal["records_removed"] = "records_removed"
    context_pins: ContextPins
    store: str = Field(min_length=1)
    policy: str = Field(min_length=1, description="what is kept, in words")
    count: Annotated[int, Field(ge=1)]
    unit: str = Field(min_length=1)
    actor: str = Field(min_length=1, max_length=128, description="the database role that removed it")
    at_utc: Time


GovernanceFact = (
    BuildCompleted
    | BuildFailed
    | BuildSuperseded
    | RunFailed
    | IdAdjudicated
    | PackOperation
    | QuarantineReplayed
    | BundleStepTaken
    | PostureChanged
    | AuditKeyRotated
    | ActionSettled
    | PolicyInForce
    | LabelsPublished
    | ArchiveConflictFound
    | RecordsRemoved
)


class GovernanceMessage(Model):
    """A fact on the stream of governance. Without `content`, where no log takes that: the table has it under its digest."""

    kind: Literal["governance_message"] = "governance_message"
    contract_version: Version = "v0"
    fact: Name
    digest: Digest = Field(description="SHA-256 over the canonical bytes of the fact")
    content: Annotated[GovernanceFact, Field(discriminator="fact")] | None = None

    def wire(self) -> dict[str, Any]:
        """As it stands on the stream: what is absent is left out, and the fact is as it is in its table."""
        head = self.model_dump(mode="json", exclude={"content"})
        return head if self.content is None else {**head, "content": self.content.wire()}


FACT: TypeAdapter[GovernanceFact] = TypeAdapter(Annotated[GovernanceFact, Field(discriminator="fact")])
FACTS = (
    "action_settled",
    "archive_conflict",
    "audit_key_rotated",
    "build_completed",
    "build_failed",
    "build_superseded",
    "bundle_step",
    "dagster_run_failed",
    "id_adjudicated",
    "labels_published",
    "pack_operation",
    "policy_in_force",
    "posture_changed",
    "quarantine_replayed",
    "records_removed",
)


def subject(fact: GovernanceFact) -> str:
    """The id of what a fact is about: a build, a run, an operation, a bundle, an event, an action, a policy, or labels."""
    if isinstance(fact, PackOperation):
        return fact.operation_id
    if isinstance(fact, IdAdjudicated):
        return fact.adjudication.event_id
    if isinstance(fact, QuarantineReplayed):
        return f"quarantine/{fact.quarantine_id}"
    if isinstance(fact, BundleStepTaken):
        return fact.bundle_digest
    if isinstance(fact, PostureChanged):
        return f"posture/{fact.sequence}"
    if isinstance(fact, AuditKeyRotated):
        return fact.to_key_id
    if isinstance(fact, ActionSettled):
        return fact.idempotency_key
    if isinstance(fact, PolicyInForce):
        return fact.rev
    if isinstance(fact, LabelsPublished):
        return f"labels/{fact.first_sequence}"
    if isinstance(fact, ArchiveConflictFound):
        return fact.segment_path
    if isinstance(fact, RecordsRemoved):
        return fact.store
    return fact.run_id if isinstance(fact, RunFailed) else fact.request_id


def gist(fact: GovernanceFact) -> str:
    """The fact in a few words, on one line."""
    match fact:
        case IdAdjudicated():
            place = f"{fact.adjudication.partition_id}/{fact.adjudication.offset}"
            return _line(fact.adjudication.event_class, f"the record at {place} counts", f"{fact.actor}: {fact.reason}")
        case PackOperation():
            way = f"registry {fact.from_registry[:12]} -> {fact.to_registry[:12]}"
            return _line(fact.step, way, fact.refusal or f"{fact.actor}: {fact.reason}")
        case QuarantineReplayed():
            return _line(fact.set_aside_for, fact.outcome, f"{fact.actor}: {fact.reason}")
        case BundleStepTaken():
            return _line(fact.step, fact.bundle_name, fact.scope, f"{fact.actor}: {fact.reason}")
        case PostureChanged():
            way = f"{fact.former_mode} -> {fact.mode}" + (", held" if fact.held else "")
            return _line(way, f"{fact.actor}: {'; '.join(fact.reasons)}")
        case AuditKeyRotated():
            return _line(f"{fact.from_key_id[:12]} -> {fact.to_key_id[:12]}", f"{fact.actor}: {fact.reason}")
        case ActionSettled():
            return _line(fact.action_type, "done" if fact.is_done else "not done", f"{fact.actor}: {fact.reason}")
        case PolicyInForce():
            return _line(fact.policy_kind, f"{fact.former_rev or 'none'} -> {fact.rev}", fact.actor)
        case LabelsPublished():
            count = fact.next_sequence - fact.first_sequence
            return _line(", ".join(fact.label_types), f"{count:,} from {fact.first_sequence}", fact.actor)
        case ArchiveConflictFound():
            place = f"{fact.stream_name}/{fact.partition_id}/{fact.positions[0]}"
            return _line(place, f"{fact.position_count:,} positions of {fact.segment_path}", fact.actor)
        case RecordsRemoved():
            return _line(f"{fact.count:,} {fact.unit}", f"kept {fact.policy}", fact.actor)
        case RunFailed():
            return _line(fact.job_name, fact.partition, *fact.reasons[:1] or (fact.error,))
        case BuildFailed():
            return _line(fact.dataset_name, None if fact.refusal is None else f"{fact.refusal.reason}: {fact.refusal.message}")
        case BuildSuperseded():
            return _line(fact.dataset_name, f"{fact.dataset_identity} superseded by {fact.superseded_by}")
        case BuildCompleted():
            return _line(fact.intent, fact.dataset_name)


def _line(*parts: str | None) -> str:
    return "  ".join(" ".join(part.split()) for part in parts if part)
