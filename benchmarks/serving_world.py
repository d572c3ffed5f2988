"""The world of the serving benchmark: a projected world, requests at random over its keys, and the values of every key."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from benchmarks.world import ACCOUNTS, MERCHANTS, fill, fresh_database, profile, request
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.vocabulary.profile import Profile

HOUR_SECONDS = 3_600
MICROS = 1_000_000
HOT_MERCHANT = f"terminal-{MERCHANTS:07d}"
GROUPS = {"account_activity": "customer_id", "merchant_risk": "terminal_id"}
"""The groups that are asked for, each with the name of its key in the events."""


@dataclass(frozen=True)
class ServingWorld:
    """A database to serve from. cold: bodies of requests for two keys at random; hot: one of the two is the hot key.

    answer_bytes: size of an answer. values: per group a table of its key and its six features, the latest of every key,
    decimals as float64, for a peer that serves precomputed values.
    """

    dsn: str
    profile: Profile
    cold: list[bytes]
    hot: list[bytes]
    answer_bytes: int
    values: dict[str, pa.Table]


def build(folder: Path, *, events: int, hot: int, requests: int, seed: int) -> ServingWorld:
    """Project the events into a database of the folder's embedded PostgreSQL."""
    rng = np.random.default_rng(seed)
    dsn = fresh_database(folder, "serving")
    serving_profile = profile("serving", folder)
    with Plane.open(serving_profile, dsn) as plane:
        fill(plane, events, hot=hot)
        row = plane.ensure_live()
        projector = plane.projector(row)
        while (receipt := projector.apply_available(max_records=200_000)) is not None:
            if receipt.failures:
                raise SystemExit(f"the world of the benchmark is wrong: {dict(receipt.failures)}")
        watermark = plane.row(row.projection_id).watermark or 0
        with plane.pool.connection() as connection:
            connection.execute("VACUUM ANALYZE")

        def random_request(merchant: str | None = None) -> bytes:
            as_of = watermark - int(rng.integers(HOUR_SECONDS)) * MICROS
            account = f"customer-{rng.integers(ACCOUNTS):07d}"
            return request(as_of, account, merchant or f"terminal-{rng.integers(MERCHANTS):07d}")

        cold = [random_request() for _ in range(requests)]
        warm = [random_request(HOT_MERCHANT) for _ in range(requests)] if hot else []
        reader = plane.reader(row)
        size = len(reader.answer(cold[0]).body)
        return ServingWorld(dsn, serving_profile, cold, warm, size, values_of(reader, watermark))


def values_of(reader: Reader, as_of: int) -> dict[str, pa.Table]:
    """The features of every key at an instant, per group."""
    rows: dict[str, dict[str, dict[str, object]]] = {group: {} for group in GROUPS}
    for number, account in zip(range(MERCHANTS), itertools.cycle(range(ACCOUNTS)), strict=False):
        body = request(as_of, f"customer-{account:07d}", f"terminal-{number:07d}")
        for key in orjson.loads(reader.answer(body).body)["snapshot"]["by_key"]:
            for group in key["by_group"]:
                rows[group["group_name"]][key["key_id"]] = group["features"]
    return {group: _table(GROUPS[group], by_key) for group, by_key in rows.items()}


def _table(key: str, by_key: dict[str, dict[str, object]]) -> pa.Table:
    columns: dict[str, pa.Array] = {key: pa.array(by_key, pa.string())}
    for name in sorted(next(iter(by_key.values()))):
        values = [features[name] for features in by_key.values()]
        whole = all(isinstance(value, int) for value in values)
        columns[name] = pa.array(values if whole else [None if value is None else float(str(value)) for value in values])
    return pa.table(columns)
