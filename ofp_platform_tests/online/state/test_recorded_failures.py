"""Pages of failures and anomalies: every record once, in the order of the log, whatever the page size."""

from __future__ import annotations

import pytest

from ofp_platform.online.state.recorded_failures import Place, read_anomalies, read_failures
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane

OFFSETS = ("2", "10", "9007199254740993", "49590338271490256608559692538361571095921575989136588898")


@pytest.fixture
def pool(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    fill_demo_plane(tmp_path_factory.mktemp("home"), dsn)
    with open_pool(dsn, max_size=2) as opened:
        with opened.connection() as connection:
            connection.execute("DELETE FROM ofp.apply_failure")
            for partition_id in ("0001", "0000"):
                for offset in OFFSETS:
                    connection.execute(
                        "INSERT INTO ofp.apply_failure VALUES (1, %s, %s, 'event', 'card_payment', 0, %s, 'detail', '', false)",
                        (partition_id, offset, "MISSING_KEY" if offset == "10" else "WRONG_TYPE"),
                    )
                    connection.execute(
                        "INSERT INTO ofp.anomaly VALUES (1, %s, %s, 'event', 'card_payment', '0000', '1')", (partition_id, offset)
                    )
        yield opened


@pytest.mark.parametrize("size", [1, 3, 8])
def test_pages_join(pool: Pool, size: int) -> None:
    expected = [(partition_id, offset) for partition_id in ("0000", "0001") for offset in OFFSETS]
    with pool.connection() as connection:
        for read in (read_failures, read_anomalies):
            listed: list[Place] = []
            while page := read(connection, 1, after=listed[-1] if listed else None, limit=size):
                assert len(page) <= size
                listed += [(one.partition_id, one.offset) for one in page]
            assert listed == expected
            assert read(connection, 2, after=None, limit=size) == []
        missing = read_failures(connection, 1, after=None, limit=size + 1, reason="MISSING_KEY")
    assert [one.offset for one in missing] == ["10"] * len(missing) != []
