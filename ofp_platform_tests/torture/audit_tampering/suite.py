"""Tampering with the audit log: every single change is found at its place, honest data has no fault, a blind verifier misses.

A real log is made in a database (records of every kind, several heads, a rotation, a witness), verified there, and read into
memory; each tamper changes a copy, and `verify_log`, the code behind `ofp audit verify`, looks at it. What the same does to rows
and objects of a database is tested in `ofp_platform_tests/audit/test_verification.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

from ofp_platform.audit import head_checks, tree_fold
from ofp_platform.audit.appending import append_records
from ofp_platform.audit.co_signing import co_sign
from ofp_platform.audit.database_view import database_view
from ofp_platform.audit.key_rotation import rotate_key
from ofp_platform.audit.signing_keys import SigningKey, is_signed
from ofp_platform.audit.verification import verify_log
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.audit.conftest import AuditedPlane
from ofp_platform_tests.torture.audit_tampering.memory_view import MemoryView
from ofp_platform_tests.torture.audit_tampering.tampers import TAMPERS, Place, edit_record, rewrite_everything
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite

TAMPERED = 1_000_000
HONEST = 1_000
BLIND = 200
_SHOWN = 10
FIRST, SECOND, WITNESS = (SigningKey.of_seed(letter * 32) for letter in (b"1", b"2", b"w"))


@dataclass
class Tally:
    """Counts by kind of tamper: tried, and not found at its place; the first of these with their seeds."""

    tried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def miss(self, kind: str, words: str) -> None:
        """See one that was not found."""
        self.missed[kind] += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(words)


def honest_log(plane: AuditedPlane) -> None:
    """Records of every kind in four appends: a rotation after the second, a witness after the first and the last."""
    plane.key = FIRST
    plane.fill()
    plane.append()
    with plane.pool.connection() as connection:
        co_sign(connection, plane.objects, WITNESS)
    plane.decide(*range(10, 15))
    plane.label(2, 3)
    plane.append(batch_leaves=4)
    rotate_key(plane.pool, plane.objects, FIRST, SECOND.key_id, ("ops", "yearly"), plane.now)
    plane.key = SECOND
    plane.publish(2)
    plane.step(1)
    plane.tell(2, 3, 4)
    append_records(plane.pool, plane.objects, SECOND, plane.now)
    plane.decide(20, 21)
    plane.append()
    with plane.pool.connection() as connection:
        co_sign(connection, plane.objects, WITNESS)


def torture(run: Run) -> None:
    """See the module."""
    with own_database(run.dsn) as dsn, open_pool(dsn) as pool:
        plane = AuditedPlane(dsn, pool, ObjectStore(str(Path(run.folder) / "objects")))
        honest_log(plane)
        with database_view(pool, plane.objects) as view:
            told, log = verify_log(view, FIRST.key_id), MemoryView.read(view)
    run.fact("log: leaves, nodes, heads", f"{len(log.leaf_rows)}, {len(log.node_rows)}, {len(log.head_rows)}")
    run.claim("verification of the honest log in its database, faults", tried=1, failed=len(told.faults), aim="0")
    with cached_signatures():
        alarms = sum(bool(verify_log(log.copy(), FIRST.key_id).faults) for _ in range(run.count(HONEST, 3)))
        run.claim("verifications of honest data, false alarms", tried=run.count(HONEST, 3), failed=alarms, aim="0")
        tally = tamper_at_random(log, random.Random(run.seed), run.count(TAMPERED, 10 * len(TAMPERS)))
        for kind in TAMPERS:
            run.claim(f"{kind}, not found at their place", tried=tally.tried[kind], failed=tally.missed[kind], aim="0")
        blind_to_all = missed_by_a_blind_verifier(log, random.Random(run.seed), run.count(BLIND, 5))
        for words, (tried, missed) in blind_to_all.items():
            run.fact(words, f"{missed:,} of {tried:,} missed", aim="all", reached=missed == tried > 0)
    run.raw["missed"] = tally.shown


def tamper_at_random(log: MemoryView, rng: random.Random, count: int) -> Tally:
    """Do single tampers, each on an untouched copy, every kind as often as the others."""
    tally, kinds = Tally(), list(TAMPERS)
    for number in range(count):
        kind, seed = kinds[number % len(kinds)], rng.getrandbits(64)
        own = random.Random(seed)
        tamper = own.choice(TAMPERS[kind])
        changed = log.copy()
        places = tamper(changed, own)
        tally.tried[kind] += 1
        faults = verify_log(changed, FIRST.key_id).faults
        if not all(any(place.is_named_by(fault) for fault in faults) for place in places):
            lines = [fault.line for fault in faults[:3]]
            tally.miss(kind, f"{tamper.__name__}, seed {seed}, at {_words(places)}: {lines}")
    return tally


def missed_by_a_blind_verifier(log: MemoryView, rng: random.Random, count: int) -> dict[str, tuple[int, int]]:
    """The negative control: without the check that finds them, tampers pass. By words: tried, and missed."""
    missed = {"edited records, by a verifier that reads none": 0, "rewritten logs, by one that believes any key": 0}
    records, keys = missed
    for _ in range(count):
        changed = log.copy()
        edit_record(changed, rng)
        with patch.object(tree_fold, "record_faults", lambda page, view: iter(())):
            missed[records] += not verify_log(changed, FIRST.key_id).faults
        changed = log.copy()
        rewrite_everything(changed, random.Random(rng.getrandbits(64)))
        with (
            patch.object(head_checks, "is_signed", lambda key_id, signature, message: True),
            patch.object(head_checks, "log_id_of", lambda key_id: _AnyText()),
            patch.object(head_checks, "key_after", lambda head: _AnyText()),
        ):
            changed.signatures.clear()
            missed[keys] += not verify_log(changed, None).faults
    return {words: (count, number) for words, number in missed.items()}


class _AnyText(str):
    """Equal to everything: what a verifier believes that does not look."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


@contextmanager
def cached_signatures() -> Iterator[None]:
    """Signatures are checked once for each key and text: a million copies of a log have the same ones."""
    with patch.object(head_checks, "is_signed", lru_cache(100_000)(is_signed)):
        yield


def _words(places: list[Place]) -> str:
    return ", ".join(str(place.subject or place.leaf_index) for place in places)


SUITE = Suite("audit_tampering", "Tampering with the audit log: each change found, at its place", torture)
