"""A served snapshot with its log: computed again from the record on, and each value with the events in its windows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.log.archive_store import Archive
from ofp_platform.offline.parity.explanation import ExplainedWindow, FeatureName, NotExplained, explain
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.projection import load_registry
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GraphVersion, SnapshotRecord
from ofp_platform.vocabulary.times import parse_time

_PAGE = 20_000


@dataclass(frozen=True)
class ServedSnapshot:
    """A served snapshot with all that its rebuild and its explanation need."""

    plane: Plane
    snapshot_hash: str
    hashed: Mapping[str, Any]
    registry: CompiledRegistry
    stream_records: StreamRecords

    @classmethod
    def load(cls, plane: Plane, snapshot_hash: str) -> Self:
        """The record of a hash, verified, and the registry that it was served under."""
        objects = plane.objects
        record = SnapshotRecord.model_validate_json(SnapshotStore(plane.pool, objects).load(snapshot_hash, plane.is_own))
        with plane.pool.connection() as connection:
            registry = load_registry(connection, record.hashed["registry_digest"])
        return cls(
            plane, snapshot_hash, record.hashed, registry, StreamRecords(plane.log, Archive(objects, plane.log.stream_name))
        )

    def rebuilt(self) -> tuple[str, int]:
        """The hash that the log gives for the same question, and how many records were read for it."""
        counts: list[int] = []
        profile = self.plane.profile
        with tempfile.TemporaryDirectory() as folder:
            answer = rebuild_recorded(
                self.stream_records,
                self.registry,
                profile.context_pins,
                RunPolicies.of(profile),
                self.hashed,
                Path(folder) / "replay",
                counts.append,
                self._context,
            )
        return answer.hash, sum(counts)

    def _context(self) -> ContextReplay:
        profile = self.plane.profile
        return ContextReplay.read(self.plane.archived_context_log(), profile.context_pins, profile.clock_skew_us)

    def find(self, feature: str, key: str | None, group: str | None) -> tuple[FeatureName, int | str | bool | None]:
        """The one feature of that name, and its served value.

        Raises:
            NotExplained: there is none, or there are several; the text lists them.
        """
        as_of = parse_time(self.hashed["as_of_time_utc"])
        matches = [
            (
                FeatureName(
                    of_key["key_type"], of_key["key_id"], of_group["group_name"], of_group["group_version"], feature, as_of
                ),
                of_group["features"][feature],
            )
            for of_key in self.hashed["values"]
            for of_group in of_key["by_group"]
            if feature in of_group["features"]
        ]
        places = [(f"{name.key_type}:{name.key_id}", f"{name.group_name}:{name.group_version}") for name, _ in matches]
        fits = [
            match
            for match, (of_key, of_group) in zip(matches, places, strict=True)
            if key in (None, of_key) and group in (None, of_group)
        ]
        if len(fits) != 1:
            there = "; ".join(f"--key {of_key} --group {of_group}" for of_key, of_group in places) or "not in this snapshot"
            raise NotExplained(f"{feature}: {'several are meant' if fits else 'none is meant'}: {there}")
        return fits[0]

    def explained(self, name: FeatureName) -> list[ExplainedWindow]:
        """The windows of a feature with their events; of a group that resolves identities, those of the whole entity.

        Raises:
            NotExplained: it is computed on demand.
        """
        basis = Basis.model_validate(self.hashed["input_basis"])
        spans = ReplayBasis.up_to(basis).partitions if basis.partitions else ()
        batches = (batch for span in spans for batch in self.stream_records.reader.batches(span, _PAGE))
        profile = self.plane.profile
        if self.registry.groups[name.group_name, name.group_version].resolves:
            version = GraphVersion.model_validate(self.hashed["graph_version"])
            key = name.key_type, name.key_id
            name = replace(name, members=self._context().entities(version, [key], name.as_of)[key].members)
        return explain(batches, self.registry, profile.context_pins, profile.clock_skew_us, name)
