"""Recorded answers: a decision or a snapshot record, read back into the question that it answered.

Records come as stored bytes: half a provenance is an outcome here, not an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ofp_platform.registry.question import PlainRequest
from ofp_platform.storage.snapshot_records import SnapshotDamaged, hashed_part
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.model import Name, SafeIdentifier
from ofp_platform.vocabulary.offline.parity_record import UncheckableReason
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import FeatureGroupRef, FeatureGroupVersionSet, GetFeaturesRequest, GraphVersion
from ofp_platform.vocabulary.times import is_canonical, parse_time

_NEEDED = (
    "context_pins",
    "feature_keys",
    "feature_groups",
    "as_of_time_utc",
    "input_basis",
    "run_config_digest",
    "registry_digest",
)
_PinsAndGroups = tuple[ContextPins, tuple[FeatureGroupRef, ...], tuple[tuple[str, str], ...]]
_GROUPS: TypeAdapter[tuple[FeatureGroupRef, ...]] = TypeAdapter(FeatureGroupVersionSet)
_CONTEXT: TypeAdapter[dict[str, int | str] | None] = TypeAdapter(dict[Name, int | str] | None, config=ConfigDict(strict=True))
_REQUEST_ID: TypeAdapter[str | None] = TypeAdapter(SafeIdentifier | None)
_KEPT = 65_536


@dataclass(frozen=True)
class ParityAnchor:
    """One thing to compare: the content of a decision record (`decision_id` says which), or of a snapshot record.

    `content` is None where the record is not there.
    """

    snapshot_hash: str
    content: bytes | None
    decision_id: str | None = None


@dataclass(frozen=True)
class ServedSnapshot:
    """A question that was answered, and at which basis, under which registry and run config.

    `as_of` in microseconds, `keys` (key type, key id) in canonical order, `group_names` (name, version) of the groups as
    they were listed, `basis_text` the canonical text of the basis.
    """

    plain: PlainRequest
    as_of: int
    keys: tuple[tuple[str, str], ...]
    groups: tuple[FeatureGroupRef, ...]
    group_names: tuple[tuple[str, str], ...]
    basis: Basis
    basis_text: str
    registry_digest: str
    run_config_digest: str
    graph_version: GraphVersion | None

    @property
    def feature_keys(self) -> tuple[FeatureKey, ...]:
        """The keys as objects."""
        return tuple([_feature_key(key_type, key_id) for key_type, key_id in self.keys])

    @property
    def request(self) -> GetFeaturesRequest:
        """The request that asks it again."""
        return GetFeaturesRequest(
            context_pins=self.plain.context_pins,
            feature_keys=self.feature_keys,
            feature_groups=self.groups,
            as_of_time_utc=self.plain.as_of_time_utc,
            request_context=self.plain.request_context,
        )


@lru_cache(maxsize=_KEPT)
def _feature_key(key_type: str, key_id: str) -> FeatureKey:
    """A key as an object, which cannot change: made, and held against the rules for ids, once."""
    return FeatureKey(key_type=KeyType(key_type), key_id=key_id)


class NotComparable(Exception):
    """A recorded snapshot that cannot be compared."""

    def __init__(self, reason: UncheckableReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class AnchorReader:
    """Reads anchors; parts that many of them share are read once."""

    def __init__(self) -> None:
        self._bases: dict[bytes, Basis] = {}
        self._parts: dict[bytes, _PinsAndGroups] = {}
        self._good_keys: set[tuple[str, str]] = set()

    def read(self, anchor: ParityAnchor) -> ServedSnapshot:
        """Read the question and the provenance of a recorded answer.

        Raises:
            NotComparable: SNAPSHOT_MISSING, SNAPSHOT_DAMAGED, PROVENANCE_INCOMPLETE.
        """
        return self.read_facts(_facts(anchor))

    def read_facts(self, facts: dict[str, Any]) -> ServedSnapshot:
        """Read them from a snapshot's `hashed` object.

        Raises:
            NotComparable: PROVENANCE_INCOMPLETE.
        """
        missing = [name for name in _NEEDED if facts.get(name) is None]
        if missing:
            raise _incomplete(f"the record lacks {', '.join(missing)}")
        graph = facts.get("graph_version")
        try:
            graph = None if graph is None else GraphVersion.model_validate(graph)
            pins, groups, names = self._pins_and_groups(facts)
            keys = self._keys(facts["feature_keys"])
            context = _CONTEXT.validate_python(facts.get("request_context"))
            text = facts["as_of_time_utc"]
            as_of = parse_time(text)
            if not is_canonical(text):
                raise ValueError("as_of_time_utc is not in canonical form")
            basis, basis_text = self._basis(facts["input_basis"])
            request_id = _REQUEST_ID.validate_python(facts.get("request_id"))
        except (ValidationError, ValueError, TypeError, KeyError) as error:
            raise _incomplete(_words(error)) from None
        digests = facts["registry_digest"], facts["run_config_digest"]
        if not all(isinstance(text_value, str) for text_value in digests):
            raise _incomplete("registry_digest or run_config_digest is no text")
        plain = PlainRequest(pins, text, context, None, request_id, None)
        return ServedSnapshot(plain, as_of, keys, groups, names, basis, basis_text, *digests, graph)

    def _keys(self, values: Any) -> tuple[tuple[str, str], ...]:
        keys = sorted([(value["key_type"], value["key_id"]) for value in values])
        for key in keys:
            if key not in self._good_keys:
                FeatureKey.model_validate({"key_type": key[0], "key_id": key[1]})
                if len(self._good_keys) > _KEPT:
                    self._good_keys.clear()
                self._good_keys.add(key)
        if not keys:
            raise ValueError("feature_keys: no key")
        return tuple(keys)

    def _pins_and_groups(self, facts: dict[str, Any]) -> _PinsAndGroups:
        text = canonical_bytes([facts["context_pins"], facts["feature_groups"]])
        parts = self._parts.get(text)
        if parts is None:
            if len(self._parts) > _KEPT:
                self._parts.clear()
            pins = ContextPins.model_validate(facts["context_pins"])
            groups = _GROUPS.validate_python(facts["feature_groups"])
            names = tuple((group.group_name, group.group_version) for group in groups)
            parts = self._parts[text] = pins, groups, names
        return parts

    def _basis(self, value: Any) -> tuple[Basis, str]:
        text = canonical_bytes(value)
        basis = self._bases.get(text)
        if basis is None:
            basis = Basis.model_validate(value)
            names = [part.partition_id for part in basis.partitions]
            if names != sorted(set(names)) or canonical_bytes(basis.model_dump(mode="json")) != text:
                raise TypeError("input_basis is not in canonical form")
            if len(self._bases) > _KEPT:
                self._bases.clear()
            self._bases[text] = basis
        return basis, text.decode()


def _facts(anchor: ParityAnchor) -> dict[str, Any]:
    if anchor.content is None:
        reason = UncheckableReason.SNAPSHOT_MISSING if anchor.decision_id is None else UncheckableReason.PROVENANCE_INCOMPLETE
        raise NotComparable(reason, "there is no record of it")
    if anchor.decision_id is None:
        try:
            return hashed_part(anchor.content, anchor.snapshot_hash)
        except SnapshotDamaged as error:
            raise NotComparable(UncheckableReason.SNAPSHOT_DAMAGED, str(error)) from None
    try:
        record = orjson.loads(anchor.content)
    except orjson.JSONDecodeError:
        raise _incomplete("the decision record is not JSON") from None
    if not isinstance(record, dict):
        raise _incomplete("the decision record is not an object")
    if record.get("feature_snapshot_hash") != anchor.snapshot_hash or record.get("decision_id") != anchor.decision_id:
        raise _incomplete("the decision record is of another decision or snapshot than it is filed under")
    definitions = record.get("feature_definition_set")
    return {**record, "registry_digest": definitions.get("digest") if isinstance(definitions, dict) else None}


def _incomplete(detail: str) -> NotComparable:
    return NotComparable(UncheckableReason.PROVENANCE_INCOMPLETE, detail)


def _words(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
