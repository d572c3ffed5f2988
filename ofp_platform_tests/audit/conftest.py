"""A database with records of every kind, a store, and a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from ofp_platform.audit.appending import AppendOutcome, append_records
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.log.governance_log import append_facts
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.embedded import SUPERUSER, as_role
from ofp_platform.storage.evidence import keep_evidence
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.dataset_manifest import manifest_path
from ofp_platform.vocabulary.offline.governance_fact import RunFailed

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
RULE = canonical_bytes({"rule": "any"})
BEGIN = 1_800_000_000_000_000
DAY = 86_400_000_000


def decision(number: int, **changes: object) -> DecisionRecord:
    """A decision on an event of that number; its snapshot is named by the number."""
    content = {
        "decision_id": decision_id(PINS, "card_payment", f"event-{number}"),
        "context_pins": PINS.wire(),
        "event_type": "card_payment",
        "event_id": f"event-{number}",
        "event_position": {"stream_name": "payments", "partition_id": "0000", "offset": number},
        "as_of_time_utc": "2026-01-01T00:00:00Z",
        "feature_snapshot_hash": sha256_hex(str(number).encode()),
        "feature_keys": [{"key_type": "account", "key_id": "a"}],
        "feature_groups": [{"group_name": "g", "group_version": "v1"}],
        "feature_definition_set": {"pack_id": "p", "revision": 1, "digest": "2" * 64},
        "run_config_digest": "3" * 64,
        "input_basis": {
            "stream_name": "payments",
            "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "offset": number + 1}],
        },
        "rule": {"rule_name": "any", "rule_version": "v1", "digest": sha256_hex(RULE)},
        "score": 1,
        "outcome": "approve",
        "decided_at_utc": "2026-01-01T00:00:01Z",
    }
    return DecisionRecord.model_validate({**content, **changes})


def fact(number: int) -> RunFailed:
    """A governance fact."""
    return RunFailed(
        run_id=f"run-{number}",
        job_name="job",
        partition=None,
        partition_range=(None, None),
        backfill_id=None,
        assets=(),
        error="it failed",
        reasons=(),
    )


@dataclass
class AuditedPlane:
    """A database with records, its object store, and the key of its log. `clock`: of `now`, one second later each time."""

    dsn: str
    pool: Pool
    objects: ObjectStore
    key: SigningKey = field(default_factory=lambda: SigningKey.of_seed(b"k" * 32))
    clock: int = BEGIN

    def now(self) -> int:
        self.clock += 1_000_000
        return self.clock

    def index_snapshots(self, *numbers: int) -> None:
        with self.pool.connection() as connection:
            for number in numbers:
                connection.execute(
                    "INSERT INTO ofp.snapshot_index (pins_digest, registry_digest, run_config_digest, basis, snapshot_hash,"
                    " as_of, reference) VALUES (%s, '', '', '', %s, 0, 'x') ON CONFLICT DO NOTHING",
                    (pins_digest(PINS), sha256_hex(str(number).encode())),
                )

    def decide(self, *numbers: int) -> None:
        self.index_snapshots(*numbers)
        with self.pool.connection() as connection:
            keep_evidence(connection, [RULE])
            append_decisions(connection, [decision(number) for number in numbers])

    def publish(self, number: int) -> None:
        """A manifest and its row, as far as the log looks at them."""
        identity = sha256_hex(b"%d" % number)
        content = canonical_bytes({"dataset_name": "fraud", "dataset_identity": identity, "request_id": "4" * 64})
        path = manifest_path("fraud", identity)
        self.objects.put_if_absent(path, content)
        with self.pool.connection() as connection:
            connection.execute(
                "INSERT INTO ofp.dataset_index VALUES ('fraud', %s, %s, %s, %s, NULL)",
                (identity, path, sha256_hex(content), "4" * 64),
            )

    def label(self, *sequences: int) -> None:
        with self.pool.connection() as connection:
            for sequence in sequences:
                connection.execute(
                    "INSERT INTO ofp.label_assertion VALUES (%s, %s, %s, 'card_payment', %s, 'fraud', 1, 0, 1, 2, 2, 'bank')",
                    (pins_digest(PINS), sequence, sha256_hex(b"label %d" % sequence), f"event-{sequence}"),
                )

    def step(self, sequence: int) -> None:
        content = {"context_pins": PINS.wire(), "sequence": sequence, "state": "READY", "kind": "run_status"}
        with self.pool.connection() as connection:
            connection.execute(
                "INSERT INTO ofp.run_status VALUES (%s, %s, 'READY', %s)",
                (pins_digest(PINS), sequence, canonical_bytes(content).decode()),
            )

    def tell(self, *numbers: int) -> None:
        append_facts(self.pool, [fact(number) for number in numbers])

    def fill(self) -> None:
        """Some records of every kind."""
        self.decide(1, 2, 3)
        self.publish(1)
        self.label(0, 1)
        self.step(0)
        self.tell(1)

    def append(self, batch_leaves: int = 10_000) -> AppendOutcome:
        return append_records(self.pool, self.objects, self.key, self.now, batch_leaves)

    def superuser(self) -> psycopg.Connection:
        """Somebody with all rights, for whom no trigger counts."""
        connection = psycopg.connect(as_role(self.dsn, SUPERUSER), autocommit=True)
        tables = ["audit_leaf", "audit_node", "audit_head", "audit_quarantine", "decision_record", "label_assertion"]
        for table in [*tables, "run_status", "governance_fact"]:
            connection.execute(f"ALTER TABLE ofp.{table} DISABLE TRIGGER ALL")
        connection.execute("ALTER TABLE ofp.audit_leaf DROP CONSTRAINT IF EXISTS audit_leaf_check")
        return connection


@pytest.fixture
def audited(dsn: str, tmp_path: Path) -> Iterator[AuditedPlane]:
    with open_pool(dsn) as pool:
        yield AuditedPlane(dsn, pool, ObjectStore(str(tmp_path / "objects")))
