"""From an intent to a plan: everything looked up once, checked, and pinned. Nothing of a run is read without its PASS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ofp_platform.identity.context_replay import ContextReplay, GraphUnknown
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog
from ofp_platform.offline.requests.anchor_resolution import anchors_in, named_anchors
from ofp_platform.offline.requests.feature_resolution import (
    NOTHING_RESOLVES,
    resolve_groups,
    resolve_pack,
    resolve_question,
)
from ofp_platform.offline.requests.intent_file import Intent, check_intent
from ofp_platform.offline.requests.policies import SHIPPED_ALONE, BuildPolicies
from ofp_platform.offline.requests.replay_history import check_history, newest_before, oldest_time
from ofp_platform.offline.requests.replay_resolution import ResolvedReplay, data_end, resolve_basis, resolve_replay
from ofp_platform.offline.requests.run_facts_view import load_run_facts
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.run_links import run_links
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.id_adjudications import standing_adjudications
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.build_intent import (
    AsOfBasis,
    DatasetBuild,
    ForensicRebuild,
    LabelRequest,
    ParityRebuild,
    PerEvent,
    Purpose,
    ResolutionRule,
    request_id,
)
from ofp_platform.vocabulary.offline.build_plan import (
    LATEST_OBSERVED,
    PRECEDENCE,
    BuildPlan,
    BuildPolicy,
    LabelBasis,
    ParityRequest,
    PinnedRunFacts,
)
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import manifest_path
from ofp_platform.vocabulary.offline.run_facts import RunFacts
from ofp_platform.vocabulary.position import order
from ofp_platform.vocabulary.serving import GraphVersion
from ofp_platform.vocabulary.times import format_time, parse_time


@dataclass(frozen=True)
class BuildSources:
    """The sources of a resolution. `is_published(dataset_name, dataset_identity)`: whether such a dataset exists;
    `next_label_sequence(pins)`: the number behind the newest assertion in the run's label store; `policy_rev`: the policy of
    the deployment under which it is resolved; `policies`: the build policies that there are; `context_log`: the stream of
    identity links, if there is one.
    """

    pool: Pool
    stream_records: StreamRecords
    is_published: Callable[[str, str], bool]
    next_label_sequence: Callable[[ContextPins], int]
    policy_rev: str | None = None
    policies: BuildPolicies = SHIPPED_ALONE
    context_log: EventLog | None = None

    @classmethod
    def of(
        cls,
        pool: Pool,
        log: EventLog,
        objects: ObjectStore,
        next_label_sequence: Callable[[ContextPins], int],
        policy_rev: str | None = None,
        policies: BuildPolicies | None = None,
        context_log: EventLog | None = None,
    ) -> BuildSources:
        """Log and archive of one stream, the datasets of an object store, a label store, and the stream of links."""

        def is_published(dataset_name: str, dataset_identity: str) -> bool:
            with replaying("supersedes"):
                return objects.exists(manifest_path(dataset_name, dataset_identity))

        stream_records = StreamRecords(log, Archive(objects, log.stream_name))
        return cls(pool, stream_records, is_published, next_label_sequence, policy_rev, policies or SHIPPED_ALONE, context_log)


def resolve(intent: Intent, sources: BuildSources, ofs_code_release_id: str) -> BuildPlan:
    """The plan of an intent, everything pinned. Equal for equal inputs; it changes nothing.

    Raises:
        BuildRefused: why it cannot be built, with the field at fault. STORE_UNAVAILABLE alone may pass by itself.
    """
    check_intent(intent)
    policy = sources.policies.resolve(intent.policy)
    _check_policy(intent, policy)
    if intent.stream_name != sources.stream_records.log.stream_name:
        raise BuildRefused(
            BuildReason.BASIS_UNRESOLVED, f"the log here is stream {sources.stream_records.log.stream_name}", "stream_name"
        )
    facts = load_run_facts(sources.pool, intent.run_facts_ref, intent.context_pins, intent.stream_name)
    resolution = _Resolution(intent, sources, policy, facts, ofs_code_release_id)
    if isinstance(intent, DatasetBuild):
        return resolution.of_dataset(intent)
    if isinstance(intent, ParityRebuild):
        return resolution.of_parity(intent)
    return resolution.of_snapshot(intent)


def _check_policy(intent: Intent, policy: BuildPolicy) -> None:
    """Refuse a training set that nobody would admit to training.

    Raises:
        BuildRefused: POLICY_TOO_WEAK.
    """
    if not isinstance(intent, DatasetBuild) or intent.purpose is not Purpose.TRAINING:
        return
    if weak := policy.weaknesses_for_training():
        raise BuildRefused(
            BuildReason.POLICY_TOO_WEAK,
            f"a training set under policy {policy.policy_id} revision {policy.revision} is not admitted to training:"
            f" {' and '.join(weak)}. Build it under a policy for training, or with purpose analysis",
            "policy",
        )


@dataclass(frozen=True)
class _Resolution:
    """The parts that all kinds of plan have in common."""

    intent: Intent
    sources: BuildSources
    policy: BuildPolicy
    facts: RunFacts
    release: str

    def of_dataset(self, intent: DatasetBuild) -> BuildPlan:
        pack, registry = resolve_pack(self.sources.pool, intent.feature_pack)
        groups = resolve_groups(intent, registry)
        replay = resolve_replay(intent.replay, self.sources.stream_records)
        label = None if intent.label is None else self._label(intent.label, replay)
        recorded_decisions = anchors_in(self.sources.pool, intent.context_pins, replay.basis)
        anchors = () if intent.parity_anchors == "none" else recorded_decisions
        decisions = recorded_decisions if isinstance(intent.scope, PerEvent) else ()
        newest = newest_before(replay.basis, self.sources.stream_records, self.facts.clock_skew_us)
        oldest = oldest_time(intent.scope)
        if oldest is not None:
            check_history(newest, oldest, [registry.groups[group.group_name, group.group_version] for group in groups])
        resolves = any(registry.groups[group.group_name, group.group_version].resolves for group in groups)
        plan = self._plan(
            replay,
            feature_pack=pack,
            feature_groups=groups,
            scope=intent.scope,
            as_of_basis=intent.as_of_basis,
            graph_version=self._graph_version(intent, replay, resolves=resolves),
            purpose=intent.purpose,
            label_basis=label,
            adjudications=self._adjudications(replay) or None,
            newest_before_replay_utc=None if newest is None else format_time(newest),
            decisions=decisions,
            parity_request=ParityRequest.of(intent.parity_anchors, decisions or anchors),
            parity_anchors=anchors,
        )
        self._check_superseded(intent, plan)
        return plan

    def _adjudications(self, replay: ResolvedReplay) -> tuple[Adjudication, ...]:
        """The decisions about records inside the replay."""
        spans = {span.partition_id: span for span in replay.basis.partitions}
        with answering():
            standing = standing_adjudications(self.sources.pool, self.intent.stream_name, self.intent.context_pins)
        return tuple(
            adjudication
            for adjudication in standing
            if (span := spans.get(adjudication.partition_id)) is not None
            and order(span.first.offset) <= order(adjudication.offset) < order(span.end.offset)
        )

    def of_parity(self, intent: ParityRebuild) -> BuildPlan:
        replay = resolve_replay(intent.replay, self.sources.stream_records)
        if intent.decision_ids is None:
            anchors = anchors_in(self.sources.pool, intent.context_pins, replay.basis)
            if not anchors:
                raise BuildRefused(
                    BuildReason.NOTHING_TO_BUILD, "no decision of this run is recorded inside the replay", "replay"
                )
        else:
            anchors = named_anchors(self.sources.pool, intent.context_pins, replay.basis, intent.decision_ids)
        return self._plan(replay, parity_anchors=anchors)

    def of_snapshot(self, intent: ForensicRebuild) -> BuildPlan:
        if intent.run_config_digest != self.facts.run_config_digest:
            text = "the run's facts pin another run config: its clock skew and lateness are part of every value"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, text, "run_config_digest")
        pack, registry = resolve_pack(self.sources.pool, intent.feature_pack)
        groups = resolve_question(intent, registry)
        if intent.graph_version is not None:
            self._check_version(self._links(), intent.graph_version)
        replay = resolve_basis(intent.basis, self.sources.stream_records)
        return self._plan(replay, feature_pack=pack, feature_groups=groups, graph_version=intent.graph_version)

    def _graph_version(self, intent: DatasetBuild, replay: ResolvedReplay, *, resolves: bool) -> GraphVersion | None:
        """The links that rows may know: those that the intent names, or that were admitted by the end of the replay's data."""
        version = intent.graph_version
        if not resolves or intent.as_of_basis is AsOfBasis.DECISION:
            if version is not None:
                text = "rows of decisions know what their decision recorded: leave it out" if resolves else NOTHING_RESOLVES
                raise BuildRefused(BuildReason.INVALID_INTENT, text, "graph_version")
            if resolves:
                self._links()  # told now, not when half is built
            return None
        links = self._links()
        if version is None:
            return GraphKnowledge(links).version_at(data_end(replay.basis, self.sources.stream_records))
        self._check_version(links, version)
        return version

    def _links(self) -> ContextReplay:
        return run_links(self.sources.context_log, self.intent.context_pins, self.facts.clock_skew_us, "feature_groups")

    @staticmethod
    def _check_version(links: ContextReplay, version: GraphVersion) -> None:
        try:
            links.basis_of(version)
        except GraphUnknown as error:
            raise BuildRefused(BuildReason.BASIS_UNRESOLVED, str(error), "graph_version") from None

    def _plan(self, replay: ResolvedReplay, **parts: object) -> BuildPlan:
        facts = self.facts
        return BuildPlan.model_validate(
            {
                "request_id": request_id(self.intent),
                "intent": self.intent,
                "context_pins": self.intent.context_pins,
                "stream_name": self.intent.stream_name,
                "run_facts": PinnedRunFacts(reference=facts.reference, digest=facts.digest),
                "replay_basis": replay.basis,
                "replay_selected_by": replay.selected_by,
                "cut_over": replay.cut_over,
                "clock_skew_us": facts.clock_skew_us,
                "allowed_lateness_us": facts.allowed_lateness_us,
                "run_config_digest": facts.run_config_digest,
                "policy": self.policy,
                "policy_rev": self.sources.policy_rev,
                "ofs_code_release_id": self.release,
                **parts,
            }
        )

    def _label(self, label: LabelRequest, replay: ResolvedReplay) -> LabelBasis:
        """Labels are known up to where the data ends: later ones would still come, and the set would not be the same again."""
        assert label.as_of_utc is not None  # see check_intent
        end = data_end(replay.basis, self.sources.stream_records)
        if parse_time(label.as_of_utc) > end:
            text = f"lies in the future of the data: the newest record of the replay was admitted at {format_time(end)}"
            raise BuildRefused(BuildReason.LABEL_ASOF_IN_FUTURE, text, "label.as_of_utc")
        return LabelBasis(
            label_type=label.label_type,
            as_of_utc=label.as_of_utc,
            maturity_seconds=label.maturity_seconds,
            next_sequence=self.sources.next_label_sequence(self.intent.context_pins),
            rule=PRECEDENCE if label.rule is ResolutionRule.PRECEDENCE else LATEST_OBSERVED,
            source_classes=label.source_classes,
        )

    def _check_superseded(self, intent: DatasetBuild, plan: BuildPlan) -> None:
        if intent.supersedes is None:
            return
        if intent.supersedes == plan.dataset_identity:
            text = "this build has that identity itself: the same data is not a new dataset"
        elif not self.sources.is_published(intent.dataset_name, intent.supersedes):
            text = "no dataset of this name is published with that identity"
        else:
            return
        raise BuildRefused(BuildReason.SUPERSEDED_UNRESOLVED, text, "supersedes")
