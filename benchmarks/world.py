"""The world that the benchmarks run on: simulated transactions over 15,000 keys in an embedded PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from ofp_platform.log.port import AdmissionClock
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import OWNER_ROLE, SUPERUSER, as_role, start_embedded
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import format_time, parse_time

ACCOUNTS, MERCHANTS = 5_000, 10_000
DAY = 86_400_000_000
START = 1_522_540_800_000_000  # 2018-04-01
PINS = ContextPins(scenario_id="benchmark", run_id="run-1", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)


def fresh_database(home: Path, name: str) -> str:
    """A new, migrated database on the embedded server of a home."""
    server = start_embedded(home / "postgres")
    with open_pool(as_role(server, SUPERUSER), max_size=1) as pool, pool.connection() as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}" OWNER {OWNER_ROLE}')
        connection.execute(f"GRANT pg_checkpoint TO {OWNER_ROLE}")  # a benchmark says when
    dsn = server.replace("/ofp?", f"/{name}?")
    migrate(dsn)
    return dsn


def profile(name: str, folder: Path) -> Profile:
    """A profile with the handbook pack: 2 keys and 12 windowed features an event; objects lie in the folder."""
    return Profile(
        profile_name=name,
        stream_name=name,
        partitions=4,
        partition_key="payload.customer_id",
        context_pins=PINS,
        pack="handbook",
        object_store_url=f"file://{folder}/objects",
    )


def transactions(count: int, *, seed: int, hot: int = 0) -> Iterator[tuple[list[dict[str, object]], AdmissionClock]]:
    """Batches of envelopes in time order over 60 days, and their clock; besides `count`, `hot` at one terminal in the last 30."""
    rng = np.random.default_rng(seed)
    whole, half = 60 * DAY // 1_000_000, 30 * DAY // 1_000_000
    ts = np.concatenate([rng.integers(0, whole, count), rng.integers(half, whole, hot)]) * 1_000_000 + START
    merchants = np.concatenate([rng.integers(0, MERCHANTS, count), np.full(hot, MERCHANTS)])
    order = np.argsort(ts, kind="stable")
    ts, merchants = ts[order], merchants[order]
    count += hot
    accounts = rng.integers(0, ACCOUNTS, count)
    amounts = rng.integers(100, 50_000, count)
    wire = PINS.wire()
    for begin in range(0, count, 50_000):
        batch: list[dict[str, object]] = [
            {
                "event_id": f"tx-{index}",
                "event_type": "transaction",
                "schema_version": "v1",
                "ts_utc": format_time(int(ts[index])),
                **wire,
                "payload": {
                    "amount_minor": int(amounts[index]),
                    "customer_id": f"customer-{accounts[index]:07d}",
                    "terminal_id": f"terminal-{merchants[index]:07d}",
                },
            }
            for index in range(begin, min(begin + 50_000, count))
        ]
        yield batch, _a_second_later


def _a_second_later(envelope: Envelope) -> int:
    """Admission of an event, microseconds: of its own time, because the log asks partition by partition."""
    return parse_time(envelope.ts_utc) + 1_000_000


def fill(plane: Plane, count: int, *, seed: int = 1, hot: int = 0) -> None:
    """Append transactions to the plane's log."""
    for batch, clock in transactions(count, seed=seed, hot=hot):
        receipt = plane.log.append(batch, clock)
        if receipt.refusals:
            raise SystemExit(f"the log refused: {receipt.refusals[0]}")


def request(as_of: int, account: str, merchant: str) -> bytes:
    """A get_features request for two keys and twelve windowed features."""
    return orjson.dumps(
        {
            "context_pins": PINS.wire(),
            "feature_keys": [{"key_type": "account", "key_id": account}, {"key_type": "merchant", "key_id": merchant}],
            "feature_groups": [
                {"group_name": "account_activity", "group_version": "v1"},
                {"group_name": "merchant_risk", "group_version": "v1"},
            ],
            "as_of_time_utc": format_time(as_of),
        }
    )
