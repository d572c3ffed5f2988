"""What killed projectors served, held against the fold of the log by the offline plane and, for some keys, by the oracle."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.parity.parity import ParityRuns, compare_all
from ofp_platform.offline.parity.parity_anchor import ParityAnchor
from ofp_platform.offline.parity.rebuilding import ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.served_batches import record_of
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.pack import pack_content
from ofp_platform.storage.snapshot_records import SnapshotMissing
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.torture.kills.check import Checked, Ledger, requests, served
from ofp_platform_tests.torture.kills.world import registry

_HOUR, _DAY = 3_600_000_000, 86_400_000_000


def check_offline(
    plane: Plane, batches: Iterable[RecordBatch], basis: ReplayBasis, answers: Sequence[Answer], ledger: Ledger, folder: Path
) -> Checked:
    """Fold the log anew, whole and by the offline plane, and rebuild every answer at the basis that it was served at."""
    declared = plane.profile
    folded = fold_replay(batches, registry(), declared.context_pins, declared.clock_skew_us, folder)
    checked = Checked()
    for name, one, other in _fates(folded, ledger):
        checked.compare("ledger", one, other, name)
    run = ReplayedRun(
        Knowledge(folded, basis),
        registry().pack,
        declared.context_pins,
        declared.run_config_digest,
        declared.allowed_lateness_us,
    )
    runs = ParityRuns(plane.log.stream_name, declared.context_pins, {(registry().digest, declared.run_config_digest): run})
    anchors = [ParityAnchor(answer.hash, record_of(answer)) for answer in answers]
    for record in compare_all(anchors, runs, "0" * 64, _not_stored):
        checked.compare("answer", record.outcome, ParityOutcome.MATCH, record.detail or "")
    return checked


def _fates(folded: FoldedReplay, ledger: Ledger) -> list[tuple[str, object, object]]:
    """(name, of the fold, of the ledger): every record has one fate, and both must know the same."""
    reasons = dict(ledger.by_reason)
    anomalies = reasons.pop("ANOMALY", 0)
    failures = Counter(folded.failures) + Counter(folded.group_failures)  # those of some groups only, too
    if folded.other_run:  # to a projection, a run that is not active here; a replay just leaves it out
        failures[ApplyFailureReason.INACTIVE_RUN.value] = folded.other_run
    return [
        ("records", folded.records, ledger.records),
        ("applied = distinct identities", folded.applied, ledger.applied),
        ("duplicates", folded.duplicates, ledger.duplicates),
        ("ignored", folded.ignored, ledger.ignored),
        ("failed", folded.failed + folded.other_run, ledger.failed),
        ("failures by reason", failures, reasons),
        ("anomalies", sum(len(one.positions) - 1 for one in folded.anomalies), anomalies),
    ]


def _not_stored(snapshot_hash: str) -> dict[str, Any]:
    raise SnapshotMissing(f"the kill loop stores no snapshot ({snapshot_hash})")


def check_oracle(
    plane: Plane,
    batches: Iterable[RecordBatch],
    projection_id: int,
    keys: Sequence[tuple[str, str]],
    as_of_before_us: int,
    some: int,
    rng: random.Random,
) -> Checked:
    """Ask about a few keys, and hold the hash against the naive fold of the records that name one of them.

    Left out are records from behind the horizon, a day before it and more: by the law they change nothing.
    """
    by_type: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in keys:
        by_type[key[0]].append(key)
    asked = [key for kind in sorted(by_type) for key in rng.sample(by_type[kind], min(some, len(by_type[kind])))]
    row = plane.row(projection_id)
    watermark = row.watermark or 0
    names = re.compile("|".join(f'"{re.escape(key_id)}"' for _, key_id in asked).encode())
    oldest = watermark - registry().reach - plane.profile.allowed_lateness_us - _DAY
    records = []
    for batch in batches:
        for place in np.flatnonzero(batch.ts > oldest).tolist():
            payload = batch.payloads[place]
            # the newest events are there for the watermark
            if watermark - _HOUR < batch.ts[place] <= watermark or names.search(payload):
                records.append(_record(batch, place, payload))
    content = pack_content(registry().pack)
    pins = plane.profile.context_pins.wire()
    known = fold.known_events(
        records,
        {part.partition_id: int(part.offset) for part in row.basis.partitions},
        pins,
        content,
        plane.profile.clock_skew_us,
    )
    checked = Checked()
    checked.compare("watermark", known.watermark, watermark)
    for key in asked:
        for body in requests(plane, [key], watermark - as_of_before_us):
            answer = served(plane, projection_id, body)
            expected = _oracle_hash(plane, known, content, orjson.loads(body), row.basis.model_dump(mode="json"))
            checked.compare("oracle", answer if isinstance(answer, str) else answer.hash, expected, key)
    return checked


def _record(batch: RecordBatch, place: int, payload: bytes) -> fold.Record:
    envelope = {
        "event_id": batch.event_ids[place],
        "event_type": batch.event_types[place],
        "schema_version": batch.schema_versions[place],
        "ts_utc": fold.time_text(int(batch.ts[place])),
        **batch.pins[batch.pins_index[place]].wire(),
        "payload": orjson.loads(payload),
    }
    return fold.Record(batch.partition_id, int(batch.offsets[place]), int(batch.admitted_at[place]), envelope)


def _oracle_hash(plane: Plane, known: fold.Known, content: dict[str, Any], body: dict[str, Any], basis: dict[str, Any]) -> str:
    """The snapshot hash as the law words it."""
    keys = [(key["key_type"], key["key_id"]) for key in body["feature_keys"]]
    groups = sorted((group["group_name"], group["group_version"]) for group in body["feature_groups"])
    as_of = fold.micros(body["as_of_time_utc"])
    expected = fold.snapshot(known, content, keys, groups, as_of, allowed_lateness=plane.profile.allowed_lateness_us)
    hashed = {
        "contract_version": "ofp_public_contracts_v0",
        "context_pins": body["context_pins"],
        "as_of_time_utc": body["as_of_time_utc"],
        "feature_keys": body["feature_keys"],
        "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
        "registry_digest": registry().digest,
        "run_config_digest": plane.profile.run_config_digest,
        "values": expected.by_key,
        "freshness": expected.freshness,
        "warnings": expected.warnings,
        "input_basis": basis,
    }
    return hashlib.sha256(jcs_bytes(hashed)).hexdigest()
