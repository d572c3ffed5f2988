"""What the oracle says of a log as it stands: read undisturbed, record by record, and folded the naive way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ofp_platform.log.port import EventLog
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.pack import pack_content
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.errors import Reason
from ofp_platform.vocabulary.position import Basis, PartitionBasis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.oracle import fold

READ_AT_ONCE = 1_000


@dataclass(frozen=True)
class Question:
    """Keys and groups of one type, and an instant (microseconds)."""

    keys: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, str], ...]
    as_of: int

    def body(self, pins: Mapping[str, Any]) -> bytes:
        """The request."""
        content = {
            "context_pins": pins,
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in self.keys],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in self.groups],
            "as_of_time_utc": fold.time_text(self.as_of),
        }
        return json.dumps(content).encode()


def questions_about(deliveries: Deliveries, registry: CompiledRegistry, names: Mapping[str, str]) -> list[Question]:
    """A question per key of the deliveries. `names`: key type -> field of the payload that holds its id."""
    found: dict[tuple[str, str], None] = {}
    for payload in map(json.loads, deliveries.payloads):
        found.update({(key_type, payload[name]): None for key_type, name in names.items() if isinstance(payload.get(name), str)})
    latest = int(deliveries.admitted_at.max())
    groups: dict[str, list[tuple[str, str]]] = {}
    for ref, plan in sorted(registry.groups.items()):
        if not plan.request_fields:
            groups.setdefault(plan.key_type, []).append(ref)
    return [Question((key,), tuple(groups[key[0]]), latest) for key in sorted(found) if key[0] in groups]


@dataclass
class LogOracle:
    """The records of a log up to where it was last read, and what must be answered on any basis among them."""

    log: EventLog
    profile: Profile
    registry: CompiledRegistry
    records: list[fold.Record] = field(default_factory=list)
    _tokens: dict[str, dict[int | str, int]] = field(default_factory=dict)
    _at: dict[str, PartitionBasis] = field(default_factory=dict)
    _known: tuple[str, fold.Known] | None = None

    def read(self) -> None:
        """Read what came since."""
        for info in self.log.partitions():
            name = info.partition_id
            places = self._tokens.setdefault(name, {})
            while True:
                batch = self.log.read(name, self._at.get(name), READ_AT_ONCE)
                self._at[name] = batch.next
                if not len(batch):
                    break
                for index, offset in enumerate(batch.offsets):
                    places[offset] = len(places)
                    envelope = batch.envelope(index).model_dump(mode="json", exclude_none=True)
                    self.records.append(fold.Record(name, places[offset], int(batch.admitted_at[index]), envelope))

    def position(self, partition_id: str, offset: int | str) -> int:
        """The place of a record in its partition, from 0. KeyError: the log has no such record."""
        return self._tokens[partition_id][offset]

    def known(self, basis: Basis) -> fold.Known:
        """known(B), by the oracle."""
        text = basis.model_dump_json()
        if self._known is None or self._known[0] != text:
            content = pack_content(self.registry.pack)
            ends = {part.partition_id: self._end(part) for part in basis.partitions}
            pins = self.profile.context_pins.wire()
            self._known = (text, fold.known_events(self.records, ends, pins, content, self.profile.clock_skew_us))
        return self._known[1]

    def _end(self, part: PartitionBasis) -> int:
        if isinstance(part.offset, int):
            return part.offset
        return self.position(part.partition_id, part.offset) + 1 if part.offset else 0

    def hash_of(self, question: Question, basis: Basis) -> str:
        """The snapshot hash as the law words it, or the reason of the refusal."""
        content = pack_content(self.registry.pack)
        lateness = self.profile.allowed_lateness_us
        try:
            answer = fold.snapshot(
                self.known(basis), content, question.keys, question.groups, question.as_of, allowed_lateness=lateness
            )
        except fold.BehindHorizon:
            return Reason.AS_OF_BEFORE_HORIZON.value
        asked = json.loads(question.body(self.profile.context_pins.wire()))
        body = {
            "contract_version": "ofp_public_contracts_v0",
            "context_pins": asked["context_pins"],
            "as_of_time_utc": asked["as_of_time_utc"],
            "feature_keys": asked["feature_keys"],
            "feature_groups": asked["feature_groups"],
            "registry_digest": self.registry.digest,
            "run_config_digest": self.profile.run_config_digest,
            "values": answer.by_key,
            "freshness": answer.freshness,
            "warnings": answer.warnings,
            "input_basis": basis.model_dump(mode="json"),
        }
        return hashlib.sha256(jcs_bytes(body)).hexdigest()

    def wrong(self, answers: Sequence[tuple[Question, Basis, str]]) -> list[str]:
        """Which of these answers (question, the basis that it names, its hash) are not the oracle's, in words."""
        found = []
        for question, basis, served in sorted(answers, key=lambda one: one[1].model_dump_json()):
            expected = self.hash_of(question, basis)
            if expected != served:
                found.append(f"{question.keys[0]} on {basis.model_dump_json()}: {served}, the oracle says {expected}")
        return found
