"""A plane with simulated payments, its pack and its run facts published: what intents resolve against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ofp_platform.log.archive_store import Archive
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.requests.resolver import BuildSources
from ofp_platform.offline.requests.run_facts_view import examine_run, publish_run_facts
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.state.projection import publish_registry
from ofp_platform.registry.compile import compile_pack
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform_tests.oracle.simulated_log import append

FACTS = "facts/run-1"


@dataclass
class ResolvablePlane:
    """See the module. `published`: the datasets that exist, as (name, identity)."""

    plane: Plane
    published: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def prepare(cls, plane: Plane, *, decided: bool = True) -> ResolvablePlane:
        """Append the payments and publish everything; record a decision, without which there is no training set."""
        append(plane.log)
        registry = compile_pack(profile_pack(plane.profile))
        with plane.pool.connection() as connection:
            publish_registry(connection, registry)
        pack = PinnedPack(pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest)
        publish_run_facts(plane.pool, examine_run(plane.pool, plane.log, plane.profile, pack, FACTS))
        made = cls(plane)
        if decided:
            first = plane.log.ends().by_partition()["0000"].model_copy(update={"offset": 1})
            made.decide(0, make_basis(plane.log.stream_name, {"0000": first}))
        return made

    @property
    def sources(self) -> BuildSources:
        """As a builder would make them."""
        objects = ObjectStore(self.plane.profile.object_store_url)
        held = StreamRecords(self.plane.log, Archive(objects, self.plane.log.stream_name))
        pool = self.plane.pool
        return BuildSources(
            pool, held, lambda name, identity: (name, identity) in self.published, LabelStore.next_sequences(pool)
        )

    def decide(self, number: int, basis: Basis, *, partition_id: str = "0000", pins: ContextPins | None = None) -> str:
        """Record a decision about the event at that offset, which knew `basis`; its id."""
        run = pins or self.plane.profile.context_pins
        event_id = f"event-{number}"
        record: dict[str, Any] = {
            "decision_id": decision_id(run, "card_payment", event_id),
            "context_pins": run,
            "event_type": "card_payment",
            "event_id": event_id,
            "event_position": {"stream_name": basis.stream_name, "partition_id": partition_id, "offset": number},
            "as_of_time_utc": "2026-01-01T00:00:00Z",
            "feature_snapshot_hash": "7" * 64,
            "feature_keys": [{"key_type": "account", "key_id": "acc-1"}],
            "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
            "feature_definition_set": {"pack_id": "card_payments", "revision": 1, "digest": "8" * 64},
            "run_config_digest": "9" * 64,
            "input_basis": basis,
            "rule": {"rule_name": "rule", "rule_version": "v1", "digest": "0" * 64},
            "score": 1,
            "outcome": "approve",
            "decided_at_utc": "2026-01-01T00:00:00Z",
        }
        found = DecisionRecord.model_validate(record)
        with self.plane.pool.connection() as connection:
            append_decisions(connection, [found])
        return found.decision_id
