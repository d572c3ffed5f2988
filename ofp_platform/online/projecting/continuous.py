"""The continuous driver: the same apply as everywhere, in a loop, awake as soon as the log has something."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Json

from ofp_platform.log.port import EventLog, LogUnavailable
from ofp_platform.online.projecting.epoch_barrier import EpochHeld
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.projecting.shard_projector import ShardProjector, ShardReceipt
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool, connect
from ofp_platform.storage.transient import is_transient, outage_words
from ofp_platform.telemetry.line_parts import positions
from ofp_platform.vocabulary.position import Basis

Receipt = TypeVar("Receipt")
logger = logging.getLogger(__name__)
DRIVER = 0x6F6670  # "ofp"
"""The lock space of continuous drivers."""
CATCH_UP = 0x6F6671
"""The lock space of bounded catch-ups, which are no drivers: they end by themselves."""
LEADER = 0x6F6672
"""The lock space of the one driver of a projection that applies; others stand by."""
SHARD = 0x6F7300
"""The lock spaces of the one driver of a key shard that applies, one for each number but 0, whose driver is the leader."""
_IDLE_SECONDS = 0.5
_HELD_SECONDS = 0.2
_RETRY_SECONDS = 1.0
_STANDBY_SECONDS = 0.5
_SESSION_SECONDS = 1.0
"""How long a driver works on without having seen that it still has the session of its locks."""


_HELD = """
    FROM pg_locks WHERE locktype = 'advisory' AND classid = %(holder)s AND objid = %(projection)s AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
# the view shows the whole server; another database has projections of the same numbers
_DIED = f"""
    SELECT EXISTS (SELECT FROM ofp.projection_driver WHERE projection_id = %(projection)s)
        AND NOT EXISTS (SELECT {_HELD})"""
_BEGIN = """
    INSERT INTO ofp.projection_driver (projection_id) VALUES (%(projection)s)
    ON CONFLICT (projection_id) DO UPDATE SET started_at = clock_timestamp(), lag = NULL, lag_seen_at = NULL"""
_TELL_LAG = "UPDATE ofp.projection_driver SET lag = %(lag)s, lag_seen_at = clock_timestamp() WHERE projection_id = %(projection)s"
_LAG = f"""
    SELECT lag FROM ofp.projection_driver WHERE projection_id = %(projection)s
        AND lag_seen_at > clock_timestamp() - interval '5 s' AND EXISTS (SELECT {_HELD})"""
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


def lag_of_driver(pool: Pool, projection_id: int) -> dict[str, int] | None:
    """The lag that a continuous driver saw within the last seconds; None: none lives, or it does not know."""
    with pool.connection() as connection:
        row = connection.execute(_LAG, {"projection": projection_id, "holder": DRIVER}).fetchone()
    return None if row is None else row[0]


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
    on_standby: Callable[[], None] = lambda: None,
    on_retired: Callable[[], None] = lambda: None,
) -> None:
    """Apply until `stop` is set. Where another driver leads, stand by: look for its lock, and read nothing. `on_retired` is
    called after a commit to a projection that is retired: another one may be live, and nobody serves this one.

    Outages of the store or the log are waited out; nothing is lost or doubled by them. An outage is what `storage/transient.py`
    lists: a failover to a server that takes no writes is one. Everything else ends the driver.

    The advisory locks only tell others that the projection is taken; correctness rests on the version of its row. A driver that
    ends otherwise than by `stop` leaves a row behind that says so (`driver_died`).
    """
    driver = _Driver(log, dsn, projection_id, LEADER, stop, on_trouble, on_standby)
    projector: Projector | None = None

    def drive(connection: Connection[TupleRow]) -> None:
        nonlocal projector
        connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (DRIVER, projection_id))
        projector = own_projector = projector or open_projector()
        arguments = {"projection": projection_id, "holder": DRIVER}
        connection.execute(_BEGIN, arguments)
        crash_point("continuous.holding")

        def give_way(conflict: ProjectionConflict) -> None:
            logger.info("another projector moved the basis: %s", conflict, extra=positions(own_projector.basis))
            own_projector.forget()

        apply = partial(own_projector.apply_available, max_records=batch_records)
        try:
            for receipt in driver.receipts(connection, apply, give_way):
                if receipt is not None:
                    on_commit(receipt)
                    crash_point("continuous.reported")
                    if own_projector.is_retired:
                        on_retired()
                if receipt is None or (log.poll_seconds and not own_projector.has_read_ahead):
                    _wait(log, own_projector.basis, stop, partial(_tell_lag, connection, arguments))
        except LogUnavailable:
            if not stop.is_set():  # else it is the end of a pause, and of this driver
                raise
        connection.execute(_END, arguments)

    def close() -> None:
        nonlocal projector
        if projector is not None:
            projector.close()
        projector = None  # opened anew: behind an outage may be another server, and a log that lost records

    driver.run(drive, close)
    close()


def run_shard(
    open_shard: Callable[[], ShardProjector],
    log: EventLog,
    dsn: str,
    projection_id: int,
    number: int,
    *,
    stop: threading.Event,
    on_commit: Callable[[ShardReceipt], None] = lambda receipt: None,
    on_trouble: Callable[[str], None] = logger.warning,
    on_standby: Callable[[], None] = lambda: None,
) -> None:
    """Apply the epochs of a key shard, other than shard 0, until `stop` is set; stand by where another driver does.

    Outages are waited out as by `run_continuous`, which is the driver of shard 0.

    Raises:
        ShardRefused: the projection has another number of shards, or has it by now.
    """
    driver = _Driver(log, dsn, projection_id, SHARD + number, stop, on_trouble, on_standby)

    def give_way(conflict: ProjectionConflict) -> None:
        logger.info("another process moved the shard: %s", conflict)

    def drive(connection: Connection[TupleRow]) -> None:
        with closing(open_shard()) as projector:
            for receipt in driver.receipts(connection, projector.apply_next, give_way):
                if receipt is None:
                    projector.wait(_IDLE_SECONDS)
                else:
                    on_commit(receipt)

    driver.run(drive)


@dataclass
class _Driver:
    """A driver of all of a projection or of a key shard: it leads or stands by, and waits outages out.

    `lock`: the space of the lock of whoever leads.
    """

    log: EventLog
    dsn: str
    projection_id: int
    lock: int
    stop: threading.Event
    on_trouble: Callable[[str], None]
    on_standby: Callable[[], None]
    _last_words: str = ""
    _session_due: float = 0.0

    def run(self, drive: Callable[[Connection[TupleRow]], None], on_failure: Callable[[], None] = lambda: None) -> None:
        """Drive until `stop` is set, on a connection that holds the lead; again after each outage."""
        while not self.stop.is_set():
            try:
                with self.log.pauses_end_with(self.stop), connect(self.dsn, autocommit=True) as connection:
                    if not self._lead(connection):
                        return
                    drive(connection)
            except Exception as error:
                on_failure()
                _wait_out(error, self.stop, self.on_trouble)

    def _lead(self, connection: Connection[TupleRow]) -> bool:
        """Take the lock of the leader as soon as nobody else has it; False: `stop` was set before."""
        stands_by = False
        while not self.stop.is_set():
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (self.lock, self.projection_id)).fetchone()
            if row is not None and row[0]:
                return True
            if not stands_by:
                self.on_standby()
                stands_by = True
            self.stop.wait(_STANDBY_SECONDS)
        return False

    def receipts(
        self,
        connection: Connection[TupleRow],
        apply: Callable[[], Receipt | None],
        give_way: Callable[[ProjectionConflict], None],
    ) -> Iterator[Receipt | None]:
        """The receipt of each commit, None where nothing was there, until `stop` is set.

        After a conflict, behind a shard that keeps an epoch, and once a second in any case it goes on only when it has seen that
        it still has its session: who lost that, and the lead with it, stands by. What it applies by are other connections: they
        may outlast an outage that the session did not.
        """
        while not self.stop.is_set():
            if time.monotonic() >= self._session_due:
                connection.execute("SELECT")
                self._session_due = time.monotonic() + _SESSION_SECONDS
            try:
                receipt = apply()
            except ProjectionConflict as conflict:
                give_way(conflict)
                connection.execute("SELECT")
                continue
            except EpochHeld as held:
                if str(held) != self._last_words:  # told once
                    self._last_words = str(held)
                    self.on_trouble(self._last_words)
                connection.execute("SELECT")
                self.stop.wait(_HELD_SECONDS)
                continue
            yield receipt


def _wait_out(error: Exception, stop: threading.Event, on_trouble: Callable[[str], None]) -> None:
    """Pause after an outage; what is none is raised."""
    if isinstance(error, LogUnavailable) and stop.is_set():
        return
    if not (isinstance(error, LogUnavailable) or is_transient(error)):
        raise error
    words = str(error) if isinstance(error, LogUnavailable) else outage_words(error)
    on_trouble(f"the store or the log does not do its work ({words}); trying again in {_RETRY_SECONDS:g} s")
    stop.wait(_RETRY_SECONDS)


def _wait(log: EventLog, basis: Basis, stop: threading.Event, tell: Callable[[dict[str, int] | None], None]) -> None:
    """Wait for records. A log that is to be asked seldom is asked again only by waiting: reading would ask it once more."""
    has_more = False
    while not has_more and not stop.is_set():
        has_more = log.wait(basis, max(_IDLE_SECONDS, 2 * log.poll_seconds)) or not log.poll_seconds
        tell(log.seen_lag())


def _tell_lag(connection: Connection[TupleRow], arguments: dict[str, int], lag: dict[str, int] | None) -> None:
    """Tell services the lag, so that they need not ask a log that is asked already; the session is seen to live either way."""
    if lag is None:
        connection.execute("SELECT")
    else:
        connection.execute(_TELL_LAG, {**arguments, "lag": Json(lag)})
