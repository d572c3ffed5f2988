"""Evidence is kept under its digest, once, and what is not there is left out."""

import psycopg
import pytest

from ofp_platform.storage.evidence import keep_evidence, read_evidence
from ofp_platform.storage.postgres import connect
from ofp_platform.vocabulary.canonical import sha256_hex


def test_a_text_is_found_by_its_digest_alone(dsn: str) -> None:
    one, other = b'{"a":1}', '{"b":"é"}'.encode()
    with connect(dsn, autocommit=True) as connection:
        keep_evidence(connection, [one, other, one])
        keep_evidence(connection, [one])
        keep_evidence(connection, [])
        names = [sha256_hex(one), sha256_hex(other), "0" * 64]
        assert read_evidence(connection, names) == {names[0]: one.decode(), names[1]: other.decode()}
        assert read_evidence(connection, []) == {}


def test_another_content_under_a_digest_is_refused(dsn: str) -> None:
    with connect(dsn, autocommit=True) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO ofp.evidence (digest, content) VALUES (%s, 'x')", ("0" * 64,))
