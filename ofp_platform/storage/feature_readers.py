"""Who reads feature groups: published datasets and trained models by the object store, decision rules by the newest records.

Manifests and lineages never change: what was read of them once is kept.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.catalogue import CatalogueReader
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage

MOST_OBJECTS = 1_000
NEWEST_DECISIONS = 1_000
Groups = tuple[tuple[str, str], ...]


class TooManyReaders(Exception):
    """More datasets and models are published than are looked at in one go."""


@dataclass
class FeatureReaders:
    """Looks for the readers of one run's groups."""

    objects: ObjectStore
    pool: Pool
    pins: ContextPins
    _manifests: dict[str, DatasetManifest] = field(default_factory=dict)
    _lineages: dict[str, ModelLineage] = field(default_factory=dict)

    def of_groups(self, registry_digest: str) -> dict[tuple[str, str], list[CatalogueReader]]:
        """The readers of each group version of a registry; datasets of this run, models trained on them, rules of its decisions.

        Raises:
            TooManyReaders: more than MOST_OBJECTS are published. ObjectStoreUnavailable | DatabaseUnavailable: see there.
        """
        readers: dict[tuple[str, str], list[CatalogueReader]] = defaultdict(list)
        groups_of: dict[str, Groups] = {}
        for manifest in self._manifests_by_path():
            if manifest.context_pins != self.pins or manifest.feature_pack.digest != registry_digest:
                continue
            groups_of[manifest.dataset_identity] = tuple(
                (group.group_name, group.group_version) for group in manifest.feature_groups
            )
            self._add(readers, groups_of[manifest.dataset_identity], "dataset", manifest.dataset_name, manifest.dataset_identity)
        for path, lineage in self._lineages_by_path():
            groups = tuple(
                (name, version)
                for name, version in groups_of.get(lineage.dataset_identity, ())
                if any(column.startswith(f"{name}_{version}__") for column in lineage.inputs)
            )
            self._add(readers, groups, "model", f"on {lineage.dataset_name}", path)
        for (kind, name, reference), groups in sorted(self._deciding(registry_digest)):
            self._add(readers, groups, kind, name, reference)
        return readers

    @staticmethod
    def _add(readers: dict[tuple[str, str], list[CatalogueReader]], groups: Groups, kind: str, name: str, reference: str) -> None:
        for group in groups:
            readers[group].append(CatalogueReader.model_validate({"kind": kind, "name": name, "reference": reference}))

    def _manifests_by_path(self) -> list[DatasetManifest]:
        paths = sorted(path for path in self.objects.list("ofs/datasets") if path.endswith("/manifest.json"))
        self._demand_few(paths)
        for path in paths:
            if path not in self._manifests:
                with suppress(ValidationError):  # damaged: it reads nothing, and `ofp dataset verify` says so
                    self._manifests[path] = DatasetManifest.model_validate_json(self._read(path))
        return [manifest for path in paths if (manifest := self._manifests.get(path)) is not None]

    def _lineages_by_path(self) -> list[tuple[str, ModelLineage]]:
        paths = sorted(path for path in self.objects.list("learning") if path.rpartition("/")[2].startswith("lineage-"))
        self._demand_few(paths)
        for path in paths:
            if path not in self._lineages:
                with suppress(ValidationError):
                    self._lineages[path] = ModelLineage.model_validate_json(self._read(path))
        return [(path, lineage) for path in paths if (lineage := self._lineages.get(path)) is not None]

    def _read(self, path: str) -> bytes:
        """The bytes of an object; none of one that went meanwhile."""
        try:
            return self.objects.get(path)
        except ObjectNotFound:
            return b""

    @staticmethod
    def _demand_few(paths: list[str]) -> None:
        if len(paths) > MOST_OBJECTS:
            raise TooManyReaders(
                f"{len(paths):,} datasets or models are published; of at most {MOST_OBJECTS:,} it is looked who reads"
            )

    def _deciding(self, registry_digest: str) -> set[tuple[tuple[str, str, str], Groups]]:
        """Rules and bundles (kind, name, digest) and the groups that they were asked for, of the newest decisions."""
        with self.pool.connection() as connection:
            rows = connection.execute(
                "SELECT content FROM ofp.decision_record WHERE pins_digest = %s"
                " ORDER BY stream_name DESC, partition_id DESC, record_offset DESC LIMIT %s",
                (pins_digest(self.pins), NEWEST_DECISIONS),
            ).fetchall()
        deciding: set[tuple[tuple[str, str, str], Groups]] = set()
        for (content,) in rows:
            record = DecisionRecord.model_validate_json(content)
            vector = record.vector
            if vector is None or vector.feature_definition_set.digest != registry_digest:
                continue
            groups = tuple((group.group_name, group.group_version) for group in vector.feature_groups)
            if record.rule is not None:
                name = f"{record.rule.rule_name}:{record.rule.rule_version}"
                deciding.add((("decision_rule", name, record.rule.digest), groups))
            elif record.bundle is not None:
                deciding.add((("bundle", record.bundle.bundle.bundle_name, record.bundle.bundle.digest), groups))
        return deciding
