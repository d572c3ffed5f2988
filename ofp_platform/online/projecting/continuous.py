"""The continuous driver: the same apply as everywhere, in a loop, awake as soon as the log has something."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg import Connection
from psycopg.rows import TupleRow

from ofp_platform.log.port import EventLog, LogUnavailable
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool, connect
from ofp_platform.storage.transient import is_transient, outage_words

logger = logging.getLogger(__name__)
DRIVER = 0x6F6670  # "ofp"
"""The lock space of continuous drivers."""
CATCH_UP = 0x6F6671
"""The lock space of bounded catch-ups, which are no drivers: they end by themselves."""
_IDLE_SECONDS = 0.5
_RETRY_SECONDS = 1.0


_HELD = """
    FROM pg_locks WHERE locktype = 'advisory' AND classid = %(holder)s AND objid = %(projection)s AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
# the view shows the whole server; another database has projections of the same numbers
_DIED = f"""
    SELECT EXISTS (SELECT FROM ofp.projection_driver WHERE projection_id = %(projection)s)
        AND NOT EXISTS (SELECT {_HELD})"""
_BEGIN = """
    INSERT INTO ofp.projection_driver (projection_id) VALUES (%(projection)s)
    ON CONFLICT (projection_id) DO UPDATE SET started_at = clock_timestamp()"""
_END = f"""
    DELETE FROM ofp.projection_driver WHERE projection_id = %(projection)s
        AND NOT EXISTS (SELECT {_HELD} AND pid <> pg_backend_pid())"""


def driver_died(pool: Pool, projection_id: int) -> bool:
    """Whether a continuous driver began on the projection, did not end in order, and none holds it now."""
    with pool.connection() as connection:
        row = connection.execute(_DIED, {"projection": projection_id, "holder": DRIVER}).fetchone()
    return row is not None and bool(row[0])


def holds_projection(pool: Pool, projection_id: int, holder: int = DRIVER) -> bool:
    """Whether some holder of that kind holds the projection now (another one then leaves the work to it)."""
    with pool.connection() as connection:
        row = connection.execute(f"SELECT count(*) {_HELD}", {"projection": projection_id, "holder": holder}).fetchone()
    return row is not None and row[0] > 0


@contextmanager
def holding(dsn: str, projection_id: int, holder: int = DRIVER) -> Iterator[Connection[TupleRow]]:
    """Hold the projection while the context lasts, on a connection of its own: the lock ends with its holder, however that ends.

    It only tells others that the projection is taken; correctness rests on the version of its row.

    Raises:
        psycopg.OperationalError: the server does not answer.
    """
    with connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (holder, projection_id))
        yield connection


def run_continuous(
    open_projector: Callable[[], Projector],
    log: EventLog,
    dsn: str,
    projection_id: int,
    *,
    batch_records: int,
    stop: threading.Event,
    on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None,
    on_trouble: Callable[[str], None] = logger.warning,
) -> None:
    """Apply until `stop` is set. Outages of the store or the log are waited out; nothing is lost or doubled by them.

    An outage is what `storage/transient.py` lists: a failover to a server that takes no writes is one. Everything else ends
    the driver.

    The advisory lock only tells others that the projection is taken; correctness rests on the version of its row. A driver that
    ends otherwise than by `stop` leaves a row behind that says so (`driver_died`).
    """
    projector: Projector | None = None
    while not stop.is_set():
        try:
            projector = projector or open_projector()
            with holding(dsn, projection_id) as connection:
                arguments = {"projection": projection_id, "holder": DRIVER}
                connection.execute(_BEGIN, arguments)
                crash_point("continuous.holding")
                while not stop.is_set():
                    receipt = projector.apply_available(max_records=batch_records)
                    if receipt is not None:
                        on_commit(receipt)
                        crash_point("continuous.reported")
                    else:
                        log.wait(projector.basis, _IDLE_SECONDS)
                connection.execute(_END, arguments)
        except ProjectionConflict as conflict:
            logger.info("another projector moved the basis: %s", conflict)
            if projector is not None:
                projector.forget()
        except Exception as error:
            projector = None  # opened anew: behind an outage may be another server, and a log that lost records
            if not (isinstance(error, LogUnavailable) or is_transient(error)):
                raise
            words = str(error) if isinstance(error, LogUnavailable) else outage_words(error)
            on_trouble(f"the store or the log does not do its work ({words}); trying again in {_RETRY_SECONDS:g} s")
            stop.wait(_RETRY_SECONDS)
