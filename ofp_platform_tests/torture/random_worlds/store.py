"""The database that worlds go through, one after the other, and what is kept between them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg import conninfo, sql
from psycopg_pool import ConnectionPool

from ofp_platform.offline.parity import rebuilding
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.state import projection
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.storage.embedded import OWNER_ROLE
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.schema import SCHEMA, migrate
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG

_EVALUATORS_KEPT = 400
_OF_WORLDS = (
    "log_stream",
    "log_incarnation",
    "log_head",
    "log_block",
    "range_end",
    "log_head_sighting",
    "log_following_record",
    "projection_driver",
    "projection",
    "projection_partition",
    "chunk",
    "tail",
    "span",
    "identity_run",
    "identity_segment",
    "identity_page",
    "identity_filter",
    "apply_failure",
    "anomaly",
    "failure_total",
    "commit_touched",
    "projection_shard",
    "epoch",
    "entity_graph",
    "entity_link",
    "entity_link_failure",
)


class WorldStore:
    """A migrated database of one process's own, its pool, and the evaluators that were made for it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._evaluators: OrderedDict[tuple[str, ContextPins, int], Evaluator] = OrderedDict()

    @classmethod
    @contextmanager
    def on_server(cls, server: str, name: str) -> Iterator[WorldStore]:
        """A new database on a server, dropped at the end."""
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER_ROLE)))
        dsn = conninfo.make_conninfo(server, dbname=name, user=OWNER_ROLE)
        try:
            migrate(dsn)
            # as the plane's own, but that connections are not tried before each use: nobody takes this server away
            with ConnectionPool(dsn, min_size=1, max_size=2, open=True, kwargs={"autocommit": True}) as pool, _remembered():
                yield cls(pool)
        finally:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def evaluator(self, registry: CompiledRegistry, pins: ContextPins, lateness: int) -> Evaluator:
        """What answers under that registry, run and policy, made once for many worlds as a server makes it once."""
        key = registry.digest, pins, lateness
        found = self._evaluators.pop(key, None) or Evaluator(registry, pins, RUN_CONFIG, lateness)
        self._evaluators[key] = found
        if len(self._evaluators) > _EVALUATORS_KEPT:
            self._evaluators.popitem(last=False)
        return found

    def empty(self) -> None:
        """Take the worlds out again, so that a long run stays as fast as it began; the packs stay published."""
        with self.pool.connection() as connection:
            tables = [sql.Identifier(SCHEMA, name) for name in _OF_WORLDS]
            connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))


def plain_json(value: Any) -> bytes:
    """RFC 8785 bytes of what worlds are made of (ASCII, integers, a 1.5): Python's own encoder writes the same, and is fast."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def _remembered() -> Iterator[None]:
    """Publish each pack once per store and compile it once: a plane does that when it starts, here it would be half of a world.

    The oracle's encoder and parser of times, too, are replaced by faster ones that say the same.
    """
    published: set[str] = set()
    compiled: dict[int, CompiledRegistry] = {}
    kept: list[Pack] = []  # an id stands for a pack only as long as the pack lives
    publish = projection.publish_registry

    def publish_once(connection: psycopg.Connection[Any], registry: CompiledRegistry) -> None:
        if registry.digest not in published:
            publish(connection, registry)
            published.add(registry.digest)

    def compile_once(pack: Pack) -> CompiledRegistry:
        if id(pack) not in compiled:
            compiled[id(pack)] = compile_pack(pack)
            kept.append(pack)
        return compiled[id(pack)]

    with (
        patch.object(projection, "publish_registry", publish_once),
        patch.object(rebuilding, "compile_pack", compile_once),
        patch.object(fold, "jcs_bytes", plain_json),
        patch.object(fold, "micros", lru_cache(maxsize=1_000)(fold.micros)),
    ):
        yield
