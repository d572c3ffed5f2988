"""What must hold of a projection that was killed over and over: it is what one that nobody touched is, at the same basis.

Compared by hash: the events of every key that the state keeps, the answers about every key, and the ledgers, to the record.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from psycopg import Connection

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.serving.reader import Reader
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.stored_identities import stored_identities
from ofp_platform_tests.oracle.stored_state import stored_events
from ofp_platform_tests.torture.kills.world import registry

KEYS_A_REQUEST = 50
_SHOWN = 10
_LEDGER = """
    SELECT sum(records)::bigint, sum(applied)::bigint, sum(duplicates)::bigint, sum(failed)::bigint, sum(ignored)::bigint
    FROM ofp.projection_partition WHERE projection_id = %s"""
_TROUBLES = """
    SELECT reason, partition_id, record_offset, event_id FROM ofp.apply_failure WHERE projection_id = %(id)s
    UNION ALL SELECT 'ANOMALY', partition_id, record_offset, event_id FROM ofp.anomaly WHERE projection_id = %(id)s
    ORDER BY 1, 2, 3, 4"""


@dataclass
class Checked:
    """What was compared how often, and what was wrong (in words, the first few). `answers`: what the projection served."""

    compared: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def compare(self, what: str, one: Any, other: Any, where: object = "") -> None:
        """Count one comparison."""
        self.compared[what] += 1
        if one != other:
            self.failed[what] += 1
            if len(self.words) < _SHOWN:
                self.words.append(f"{what} {where}: {str(one)[:120]} and {str(other)[:120]}".replace("\n", " "))

    def take(self, other: Checked) -> None:
        """Add another check to this one."""
        self.compared += other.compared
        self.failed += other.failed
        self.words += other.words[: _SHOWN - len(self.words)]
        self.answers += other.answers


@dataclass(frozen=True)
class Ledger:
    """Counts of a projection since it began, and the SHA-256 of every record that it could not apply or found odd."""

    records: int
    applied: int
    duplicates: int
    failed: int
    ignored: int
    troubles: str
    by_reason: tuple[tuple[str, int], ...]


def check_projection(plane: Plane, killed: int, unkilled: int, as_of_before_us: int) -> Checked:
    """Hold a projection against an unkilled one at the same basis; answers are as of `as_of_before_us` before the watermark."""
    checked = Checked()
    rows = plane.row(killed), plane.row(unkilled)
    checked.compare("basis", rows[0].basis, rows[1].basis)
    checked.compare("watermark", rows[0].watermark, rows[1].watermark)
    watermark = rows[1].watermark or 0
    horizon = watermark - registry().reach - plane.profile.allowed_lateness_us
    with plane.pool.connection() as connection:
        ledgers = ledger(connection, killed), ledger(connection, unkilled)
        states = state_digests(connection, killed, horizon), state_digests(connection, unkilled, horizon)
        checked.compare("identity", *_known_twice(connection, killed))
    for name in Ledger.__dataclass_fields__:
        checked.compare("ledger", getattr(ledgers[0], name), getattr(ledgers[1], name), name)
    # before the watermark's horizon nothing is servable, and the two may have pruned at other commits
    for key in sorted(states[0].keys() | states[1].keys()):
        checked.compare("state", states[0].get(key), states[1].get(key), key)
    for body in requests(plane, sorted(states[1]), watermark - as_of_before_us):
        answers = served(plane, killed, body), served(plane, unkilled, body)
        checked.compare("answer", *(one if isinstance(one, str) else one.hash for one in answers))
        if not isinstance(answers[0], str):
            checked.answers.append(answers[0])
    return checked


def ledger(connection: Connection[Any], projection_id: int) -> Ledger:
    """The ledger of a projection."""
    sums = connection.execute(_LEDGER, (projection_id,)).fetchone()
    assert sums is not None
    troubles = connection.execute(_TROUBLES, {"id": projection_id}).fetchall()
    digest = hashlib.sha256(orjson.dumps(troubles)).hexdigest()
    reasons = Counter(str(reason) for reason, *_ in troubles)
    return Ledger(*(int(one or 0) for one in sums), digest, tuple(sorted(reasons.items())))


def _known_twice(connection: Connection[Any], projection_id: int) -> tuple[int, int]:
    """How many identities the projection holds, and how many distinct ones."""
    words = stored_identities(connection, projection_id)
    return len(words), len(np.unique(words[:, 2:4], axis=0))


def state_digests(connection: Connection[Any], projection_id: int, horizon: int) -> dict[tuple[str, str], str]:
    """(key type, key id) to the SHA-256 of its events after the horizon, however they are cut into chunks and a tail."""
    found: dict[tuple[str, str], str] = {}
    for key, events in stored_events(connection, projection_id, registry()).items():
        kept = events[:, events[0] > horizon]
        if kept.shape[1]:
            # events of one time stand as they came, where no feature asks for their order
            ordered = np.ascontiguousarray(kept[:, np.lexsort(kept[::-1])])
            found[key] = hashlib.sha256(ordered.tobytes()).hexdigest()
    return found


def requests(plane: Plane, keys: list[tuple[str, str]], as_of: int) -> Iterator[bytes]:
    """Requests for all groups of those keys that need nothing of the caller, some keys at a time."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for key_type, key_id in keys:
        by_type[key_type].append(key_id)
    for key_type, key_ids in by_type.items():
        groups = [
            {"group_name": group.name, "group_version": group.version}
            for group in registry().groups.values()
            if group.key_type == key_type and not group.request_fields
        ]
        for start in range(0, len(key_ids) if groups else 0, KEYS_A_REQUEST):
            yield orjson.dumps(
                {
                    "context_pins": plane.profile.context_pins.wire(),
                    "feature_keys": [{"key_type": key_type, "key_id": name} for name in key_ids[start : start + KEYS_A_REQUEST]],
                    "feature_groups": groups,
                    "as_of_time_utc": format_time(as_of),
                }
            )


def served(plane: Plane, projection_id: int, body: bytes) -> Answer | str:
    """The answer of a projection, or why it refuses."""
    declared = plane.profile
    evaluator = _evaluator(plane)
    try:
        return Reader(plane.pool, projection_id, evaluator, declared.limits).answer(body)
    except ContractError as refusal:
        return refusal.reason.value


def _evaluator(plane: Plane) -> Evaluator:
    """Under the profile's run config, whatever digest tells the projection from others in the store."""
    declared = plane.profile
    return Evaluator(registry(), declared.context_pins, declared.run_config_digest, declared.allowed_lateness_us)
