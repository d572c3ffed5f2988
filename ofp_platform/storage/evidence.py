"""Evidence: texts that a record names by their digest, kept for good. PostgreSQL holds each text against its digest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.canonical import sha256_hex


def keep_evidence(connection: Connection[Any], contents: Iterable[bytes]) -> None:
    """Keep these canonical bytes, each under its SHA-256; what is there stays."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ofp.evidence (digest, content) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [(sha256_hex(content), content.decode("utf-8")) for content in contents],
        )


def read_evidence(connection: Connection[Any], digests: Iterable[str]) -> dict[str, str]:
    """The texts by digest, as they are stored; what is not there is left out."""
    rows = connection.execute("SELECT digest, content FROM ofp.evidence WHERE digest = ANY(%s)", (list(digests),)).fetchall()
    return dict(rows)
