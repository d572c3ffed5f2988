"""Projections and registries in the store: create, find, publish, switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from ofp_platform.online.state.pruning import PruningPlace
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.history import check
from ofp_platform.registry.pack import group_digests, load_pack
from ofp_platform.storage.notices import PROJECTION_CHANNEL, SWITCH, send_notice
from ofp_platform.storage.published_packs import pack_content
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis


class RegistryRefused(Exception):
    """A pack redefines a group version that was published with another content."""


class ProjectionConflict(Exception):
    """Somebody else moved the projection since it was read; read again and retry."""


class UnknownProjection(Exception):
    """No such projection in this store."""


@dataclass(frozen=True)
class ProjectionRow:
    """One projection as the store has it. `watermark` in microseconds, None before the first event.

    `pruned_to`: the horizon of the last pruning; `pruning`: how far that has come, None: it is done. `shards`: its key shards,
    that many from version `sharded_at` on.
    """

    projection_id: int
    stream_name: str
    pins: ContextPins
    registry_digest: str
    run_config_digest: str
    status: str
    version: int
    basis: Basis
    watermark: int | None
    pruned_to: int | None
    pruning: PruningPlace | None = None
    shards: int = 1
    sharded_at: int = 0


_COLUMNS = (
    "projection_id, stream_name, pins, registry_digest, run_config_digest, status, version, basis, watermark, pruned_to,"
    " pruning_type, pruning_key, pruning_ts, shards, sharded_at"
)


def _row(row: dict[str, Any]) -> ProjectionRow:
    row = dict(row)
    row["pins"] = ContextPins.model_validate_json(row["pins"])
    row["basis"] = Basis.model_validate_json(row["basis"])
    place = [row.pop(name) for name in ("pruning_type", "pruning_key", "pruning_ts")]
    row["pruning"] = None if place[0] is None else PruningPlace(*place)
    return ProjectionRow(**row)


def publish_registry(connection: Connection[Any], registry: CompiledRegistry) -> None:
    """Record the pack and its group versions for good. Idempotent.

    Raises:
        RegistryRefused: a group version exists with another content.
    """
    with connection.transaction():
        connection.execute("LOCK TABLE ofp.registry_group IN SHARE ROW EXCLUSIVE MODE")
        refusals = check(published_groups(connection), registry.pack)
        if refusals:
            raise RegistryRefused("\n".join(str(refusal) for refusal in refusals))
        connection.execute(
            "INSERT INTO ofp.registry_pack VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                registry.digest,
                registry.pack.pack_id,
                registry.pack.revision,
                registry.pack.model_dump_json(by_alias=True, exclude_none=True),
            ),
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ofp.registry_group VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(*ref, digest, registry.digest) for ref, digest in group_digests(registry.pack).items()],
            )


def published_groups(connection: Connection[Any]) -> dict[tuple[str, str], str]:
    """(group name, group version) to content digest, of everything ever published here."""
    rows = connection.execute("SELECT group_name, group_version, content_digest FROM ofp.registry_group").fetchall()
    return {(name, version): digest for name, version, digest in rows}


def load_registry(connection: Connection[Any], registry_digest: str) -> CompiledRegistry:
    """The published pack of that digest, compiled.

    Raises:
        UnknownProjection: it was never published here.
    """
    content = pack_content(connection, registry_digest)
    if content is None:
        raise UnknownProjection(f"no pack with digest {registry_digest} was published here")
    return compile_pack(load_pack(content, registry_digest))


def open_projection(
    connection: Connection[Any],
    stream_name: str,
    pins: ContextPins,
    registry: CompiledRegistry,
    run_config_digest: str,
    *,
    status: str = "building",
) -> ProjectionRow:
    """Find or create the projection of (stream, pins, registry, policy). Idempotent; an existing status stays.

    A new one has as many key shards as the live one of the run.

    Raises:
        RegistryRefused: see `publish_registry`.
    """
    with connection.transaction():
        publish_registry(connection, registry)
        key = (stream_name, pins_digest(pins), registry.digest, run_config_digest)
        pins_text = canonical_bytes(pins.wire()).decode()
        created = connection.execute(
            "INSERT INTO ofp.projection (stream_name, pins_digest, registry_digest, run_config_digest, pins, status, basis,"
            " shards) VALUES (%s, %s, %s, %s, %s, %s, %s, coalesce((SELECT shards FROM ofp.projection"
            " WHERE (stream_name, pins_digest, status) = (%s, %s, 'live')), 1))"
            " ON CONFLICT DO NOTHING RETURNING projection_id, shards",
            (*key, pins_text, status, basis_text(make_basis(stream_name, {})), *key[:2]),
        ).fetchone()
        if created is not None and created[1] > 1:
            connection.execute(
                "INSERT INTO ofp.projection_shard (projection_id, shard, version) SELECT %s, generate_series(1, %s - 1), 0",
                created,
            )
        with connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(
                f"SELECT {_COLUMNS} FROM ofp.projection WHERE (stream_name, pins_digest, registry_digest, run_config_digest)"
                " = (%s, %s, %s, %s)",
                key,
            ).fetchone()
    if row is None:
        raise UnknownProjection(
            f"stream {stream_name} has a live projection of this run under another registry: build the new one beside it"
            " (`ofp projection rebuild`) and switch"
        )
    if created is not None and status == "live":
        tell_of_switch(connection)  # services wait for the first one
    return _row(row)


def read_projection(connection: Connection[Any], projection_id: int, *, for_update: bool = False) -> ProjectionRow:
    """One projection; `for_update` locks its row until the transaction ends, against others that do so and change it.

    Raises:
        UnknownProjection: there is none.
    """
    lock = " FOR NO KEY UPDATE" if for_update else ""  # rows that refer to it may be added meanwhile
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(f"SELECT {_COLUMNS} FROM ofp.projection WHERE projection_id = %s{lock}", (projection_id,)).fetchone()
    if row is None:
        raise UnknownProjection(f"there is no projection {projection_id}")
    return _row(row)


def read_projection_of(connection: Connection[Any], projection_id: int, registry_digest: str) -> ProjectionRow:
    """One projection, which must be of that registry.

    Raises:
        ProjectionConflict: it is of another. UnknownProjection: there is none.
    """
    row = read_projection(connection, projection_id)
    if row.registry_digest != registry_digest:
        raise ProjectionConflict(f"projection {projection_id} is of registry {row.registry_digest}, not of {registry_digest}")
    return row


def list_projections(connection: Connection[Any], *, status: str | None = None) -> list[ProjectionRow]:
    """All projections, oldest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_COLUMNS} FROM ofp.projection WHERE %s::text IS NULL OR status = %s ORDER BY projection_id",
            (status, status),
        ).fetchall()
    return [_row(row) for row in rows]


def make_live(connection: Connection[Any], projection_id: int, expected_version: int) -> int | None:
    """Make a projection live and retire the one that was. Returns the retired one's id. Then, after the commit: `tell_of_switch`.

    Raises:
        ProjectionConflict: the projection moved since `expected_version` was compared.
    """
    with connection.transaction():
        row = read_projection(connection, projection_id, for_update=True)
        if row.version != expected_version:
            raise ProjectionConflict(f"projection {projection_id} is at {row.version}, not at {expected_version}")
        if row.status == "live":
            return None
        retired_rows = connection.execute(
            "UPDATE ofp.projection SET status = 'retired' WHERE stream_name = %s AND pins_digest = %s AND status = 'live'"
            " RETURNING projection_id",
            (row.stream_name, pins_digest(row.pins)),
        ).fetchone()
        connection.execute("UPDATE ofp.projection SET status = 'live' WHERE projection_id = %s", (projection_id,))
    return None if retired_rows is None else int(retired_rows[0])


def tell_of_switch(connection: Connection[Any]) -> None:
    """Tell services, after the commit, that another projection is live."""
    send_notice(connection, PROJECTION_CHANNEL, SWITCH)


def retire(connection: Connection[Any], projection_id: int) -> bool:
    """Retire a projection that was built beside the live one and is not wanted any more; False if it is retired already.

    Raises:
        UnknownProjection: there is none. ProjectionConflict: it is the live one.
    """
    with connection.transaction():
        row = read_projection(connection, projection_id, for_update=True)
        if row.status == "live":
            raise ProjectionConflict(
                f"projection {projection_id} is the live one: whoever is served reads it. Make another one live first"
                " (`ofp projection switch`)"
            )
        connection.execute("UPDATE ofp.projection SET status = 'retired' WHERE projection_id = %s", (projection_id,))
    return row.status != "retired"
