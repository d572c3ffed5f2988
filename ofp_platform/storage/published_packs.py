"""Packs as they were published: text by digest. What the text means is the registry's."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def pack_content(connection: Connection[Any], registry_digest: str) -> str | None:
    """The text of the pack of that digest, or None when it was never published here."""
    row = connection.execute("SELECT content FROM ofp.registry_pack WHERE registry_digest = %s", (registry_digest,)).fetchone()
    return None if row is None else str(row[0])


def pack_digests(connection: Connection[Any], pack_id: str, revision: int) -> list[str]:
    """The digests under which this revision of a pack was published, sorted: none, or one, or (an error of its author) more."""
    rows = connection.execute(
        "SELECT registry_digest FROM ofp.registry_pack WHERE (pack_id, revision) = (%s, %s) ORDER BY registry_digest",
        (pack_id, revision),
    ).fetchall()
    return [digest for (digest,) in rows]
