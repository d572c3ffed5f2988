"""A plane whose log, labels and run facts are ready for a dataset: simulated payments of three weeks, nothing wrong with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.labels.label_sources import FRAUD_REPORTS, reported_labels
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, answer_at, replay_run
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.requests.run_facts_view import examine_run, publish_run_facts
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.projection import publish_registry
from ofp_platform.registry.compile import compile_pack
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.simulation.rings import EnvelopeDelivery
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, RuleRef, decision_id
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef, GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.intents import DATASET, changed
from ofp_platform_tests.oracle.simulated_log import PINS, append, profile

FACTS = "facts/run-1"
GROUPS = [{"group_name": name, "group_version": "v1"} for name in ("account_activity", "merchant_activity")]
DECIDED = "payment-0000390"
"""The event on which a decision is recorded: without one there is no training set."""
LABEL_AS_OF = "2026-01-18T00:00:00Z"


@cache
def payments() -> Deliveries:
    """400 payments of 20 days with copies, retries, late and bad records, and the reports of their frauds."""
    few = PopulationSize(customers=12, accounts=15, merchants=15)
    wanted = PaymentSimulation(pins=ContextPins.model_validate(PINS), seed=7, payments=400, days=20, size=few)
    return simulate_payments(wanted).deliveries


@dataclass
class LabelledPlane:
    """See the module."""

    plane: Plane
    folder: Path

    @classmethod
    def prepare(
        cls,
        dsn: str,
        folder: Path,
        *,
        archived: bool = True,
        deliveries: Deliveries | None = None,
        decided: bool = True,
        amendments: Sequence[EnvelopeDelivery] = (),
        **settings: Any,
    ) -> LabelledPlane:
        """Append, publish the pack and the run's facts, load labels, archive, decide. The caller closes `plane`."""
        plane = Plane.open(profile(folder, **settings), dsn)
        all_deliveries, start = deliveries or payments(), 0
        for amendment in sorted(amendments, key=lambda each: each.admitted_at):
            stop = int(np.searchsorted(all_deliveries.admitted_at, amendment.admitted_at, side="right"))
            append(plane.log, all_deliveries.part(start, stop))
            receipt = plane.log.append([amendment.envelope], lambda _, moment=amendment.admitted_at: moment)  # type: ignore[misc]
            assert not receipt.refusals, receipt.refusals
            start = stop
        append(plane.log, all_deliveries.part(start, len(all_deliveries)))
        registry = compile_pack(profile_pack(plane.profile))
        with plane.pool.connection() as connection:
            publish_registry(connection, registry)
        pack = PinnedPack(pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest)
        publish_run_facts(plane.pool, examine_run(plane.pool, plane.log, plane.profile, pack, FACTS))
        made = cls(plane, folder)
        if archived:
            archive_up_to(plane.ranges, made.build_context.archive, plane.log.ends())
        declared = plane.profile
        if (rule := FRAUD_REPORTS.get(registry.pack.pack_id)) is not None:
            found = reported_labels(made.batches(), rule, declared.context_pins, declared.clock_skew_us)
            LabelStore(plane.pool, declared.context_pins).append(found.assertions, as_observed)
        if decided:
            made.decide()
        return made

    def decide(self) -> str:
        """Record a decision on DECIDED, served from the whole log; its id. No projection is made for it."""
        plane = self.plane
        declared = plane.profile
        basis = plane.log.ends()
        batch = next(batch for batch in self.batches() if DECIDED in batch.event_ids)
        index = batch.event_ids.index(DECIDED)
        account_id = orjson.loads(batch.payloads[index])["account_id"]
        registry = compile_pack(profile_pack(declared))
        with tempfile.TemporaryDirectory() as folder:
            policies = RunPolicies.of(declared)
            records = self.build_context.stream_records
            run = replay_run(records, self.everything, registry, declared.context_pins, policies, Path(folder) / "replay")
            request = GetFeaturesRequest(
                context_pins=declared.context_pins,
                feature_keys=(FeatureKey(key_type=KeyType.ACCOUNT, key_id=account_id),),
                feature_groups=(FeatureGroupRef(group_name="account_activity", group_version="v1"),),
                as_of_time_utc=format_time(int(batch.ts[index])),
            )
            links = self.links()
            version = None if links is None else GraphKnowledge(links).newest
            answer = answer_at(run, request, basis, version, links)
        SnapshotStore(plane.pool, self.objects).materialise([answer])
        record = DecisionRecord(
            decision_id=decision_id(declared.context_pins, "card_payment", DECIDED),
            context_pins=declared.context_pins,
            event_type="card_payment",
            event_id=DECIDED,
            event_position=Position(stream_name=basis.stream_name, partition_id=batch.partition_id, offset=batch.offsets[index]),
            as_of_time_utc=request.as_of_time_utc,
            feature_snapshot_hash=answer.hash,
            feature_keys=request.feature_keys,
            feature_groups=request.feature_groups,
            feature_definition_set=FeatureDefinitionSet(
                pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest
            ),
            run_config_digest=declared.run_config_digest,
            input_basis=basis,
            graph_version=version,
            rule=RuleRef(rule_name="rule", rule_version="v1", digest="0" * 64),
            score=1,
            outcome=Outcome.APPROVE,
            decided_at_utc="2026-01-21T00:00:00Z",
        )
        with plane.pool.connection() as connection:
            append_decisions(connection, [record])
        return record.decision_id

    @property
    def objects(self) -> ObjectStore:
        """The object store."""
        return ObjectStore(self.plane.profile.object_store_url)

    @property
    def build_context(self) -> BuildContext:
        """A build context; a new one each time, as another process would have it."""
        context_log = self.plane.known_context_log()
        return BuildContext(self.plane.pool, self.plane.log, self.objects, self.folder / "builds", context_log=context_log)

    def links(self) -> ContextReplay | None:
        """The links of the run, if there is a stream of them."""
        declared, context_log = self.plane.profile, self.plane.known_context_log()
        if context_log is None:
            return None
        return ContextReplay.read(context_log, declared.context_pins, declared.clock_skew_us)

    @property
    def everything(self) -> ReplayBasis:
        """The whole log."""
        return ReplayBasis.up_to(self.plane.log.ends())

    def batches(self) -> Iterator[RecordBatch]:
        """The whole log, read."""
        for span in self.everything.partitions:
            yield from self.build_context.stream_records.reader.batches(span, 1_000)

    def intent(self, name: str = "fraud_by_payment", **changes: Any) -> DatasetBuild:
        """A training set of all payments; `changes` replace fields of the intent."""
        content = changed(
            DATASET,
            dataset_name=name,
            replay={"select": "offsets", "basis": self.everything.model_dump(mode="json")},
            feature_groups=GROUPS,
            scope={"kind": "per_event", "event_types": ["card_payment"], "payload_fields": ["amount_minor"]},
            label={"label_type": "fraud", "as_of_utc": LABEL_AS_OF, "maturity_seconds": 7 * 86_400},
        )
        intent = parse_intent({**content, **changes})
        assert isinstance(intent, DatasetBuild)
        return intent
