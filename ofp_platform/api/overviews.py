"""Lists of builds, comparisons, datasets and pack operations of the run that is served: read by pages, each in bounds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ofp_platform.api.bounded_work import BoundedWork, WorkBounds
from ofp_platform.api.service import MayRead
from ofp_platform.offline.datasets.dataset_overview import find_dataset, list_datasets
from ofp_platform.offline.parity.parity_overview import MismatchUnreadable, day_start, list_comparisons, report_of
from ofp_platform.offline.runs.build_overview import find_build, list_builds
from ofp_platform.storage.bundle_events import Moment, NoSuchStep, all_in_force, list_bundle_events
from ofp_platform.storage.objects import ObjectStoreUnavailable, open_objects
from ofp_platform.storage.pack_operations import newest_operations
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.loop.bundle_views import BundleHistory, BundlesInForce
from ofp_platform.vocabulary.model import is_digest
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.overviews import BuildList, BuildProgress, DatasetList, ParityList
from ofp_platform.vocabulary.pack_operations import PackOperations
from ofp_platform.vocabulary.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

_BOUNDS = WorkBounds(answer_seconds=10.0, most_waiting=16)
_STATEMENT = "SET LOCAL statement_timeout = '8s'"
_OBJECT_SECONDS = 5.0  # manifests are small
_SEPARATOR = "~"


class Overviews:
    """An OverviewPort over one database and object store. `dsn`: of a role that may read all of it, as the auditor's."""

    def __init__(self, profile: Profile, dsn: str, *, bounds: WorkBounds = _BOUNDS) -> None:
        self._pins = profile.context_pins
        self._stream_name = profile.stream_name
        self._objects = open_objects(profile, answer_seconds=_OBJECT_SECONDS)
        self.work = BoundedWork(dsn, "the database does not answer in time", "lists", bounds)

    async def builds(self, limit: int, state: RunState | None, cursor: str | None) -> bytes:
        """See OverviewPort."""
        before = _number(cursor)

        def read(connection: Connection[Any]) -> bytes:
            rows = list_builds(connection, self._pins, limit + 1, state=state, before=before)
            page = BuildList(builds=tuple(build for _, build in rows[:limit]), next_cursor=_behind(rows, limit))
            return page.model_dump_json().encode()

        return await self._read(read)

    async def build_stages(self, run_key: str, may_read: MayRead) -> bytes:
        """See OverviewPort."""

        def read(connection: Connection[Any]) -> bytes:
            build = find_build(connection, self._pins, run_key) if may_read(self._pins) else None
            if build is None:
                raise not_found(Reason.UNKNOWN_BUILD_RUN, "no build of this run has this key; GET /v0/build_runs lists them")
            return BuildProgress(build=build[0], stages=build[1]).model_dump_json().encode()

        return await self._read(read)

    async def comparisons(self, limit: int, cursor: str | None) -> bytes:
        """See OverviewPort."""
        before: tuple[int, str] | None = None
        if cursor is not None:
            place, _, comparison_id = cursor.partition(_SEPARATOR)
            number = _number(place.removeprefix("-"))
            if number is None or not is_digest(comparison_id):
                raise _wrong_cursor()
            before = (-number if place.startswith("-") else number), comparison_id

        def read(connection: Connection[Any]) -> bytes:
            rows = list_comparisons(connection, self._pins, limit + 1, before)
            behind = _SEPARATOR.join(map(str, rows[limit - 1].place)) if len(rows) > limit else None
            page = ParityList(comparisons=tuple(row.comparison for row in rows[:limit]), next_cursor=behind)
            return page.model_dump_json().encode()

        return await self._read(read)

    async def parity_report(self, comparison_id: str, before: str | None, may_read: MayRead) -> bytes:
        """See OverviewPort."""
        try:
            before_us = None if before is None else day_start(before)
        except ValueError:
            raise invalid(Reason.INVALID_FIELD, "before is a day, as in 2026-02-01") from None

        def read(connection: Connection[Any]) -> bytes:
            try:
                report = report_of(connection, self._pins, comparison_id, before_us) if may_read(self._pins) else None
            except MismatchUnreadable as error:
                raise unavailable(Reason.INTERNAL, str(error)) from None
            if report is None:
                raise not_found(Reason.UNKNOWN_COMPARISON, "no comparison of this run has this id; GET /v0/parity lists them")
            return report.model_dump_json().encode()

        return await self._read(read)

    async def datasets(self, limit: int, cursor: str | None) -> bytes:
        """See OverviewPort."""
        behind = ("", "")
        if cursor is not None:
            name, separator, identity = cursor.partition(_SEPARATOR)
            if not separator or not is_digest(identity):
                raise _wrong_cursor()
            behind = name, identity

        def read(connection: Connection[Any]) -> bytes:
            page = list_datasets(connection, self._objects, self._pins, limit, behind)
            next_cursor = None if page.behind is None else _SEPARATOR.join(page.behind)
            return DatasetList(datasets=page.entries, next_cursor=next_cursor).model_dump_json().encode()

        return await self._read(read)

    async def dataset(self, name: str, identity: str, may_read: MayRead) -> bytes:
        """See OverviewPort."""

        def read(connection: Connection[Any]) -> bytes:
            is_own = may_read(self._pins)
            dataset = find_dataset(connection, self._objects, self._pins, name, identity) if is_own else None
            if dataset is None:
                words = "no dataset of this run has this name and identity; GET /v0/datasets lists them"
                raise not_found(Reason.UNKNOWN_DATASET, words)
            return dataset.model_dump_json().encode()

        return await self._read(read)

    async def pack_operations(self, limit: int, cursor: str | None) -> bytes:
        """See OverviewPort."""
        before = _number(cursor)

        def read(connection: Connection[Any]) -> bytes:
            rows = newest_operations(connection, self._stream_name, self._pins, limit + 1, before)
            page = PackOperations(steps=tuple(step for _, step in rows[:limit]), next_cursor=_behind(rows, limit))
            return page.model_dump_json().encode()

        return await self._read(read)

    async def bundles(self, limit: int, cursor: str | None) -> bytes:
        """See OverviewPort."""
        before = _number(cursor)

        def read(connection: Connection[Any]) -> bytes:
            rows = list_bundle_events(connection, self._pins, limit + 1, before)
            behind = str(rows[limit - 1].event.sequence) if len(rows) > limit else None
            page = BundleHistory(context_pins=self._pins, steps=tuple(rows[:limit]), next_cursor=behind)
            return canonical_bytes(page.wire())

        return await self._read(read)

    async def bundles_in_force(self, at_sequence: int | None, at_time: int | None) -> bytes:
        """See OverviewPort."""

        def read(connection: Connection[Any]) -> bytes:
            try:
                scopes = all_in_force(connection, self._pins, Moment(at_sequence, at_time))
            except NoSuchStep as error:
                raise invalid(Reason.INVALID_FIELD, str(error)) from None
            return canonical_bytes(BundlesInForce(context_pins=self._pins, scopes=tuple(scopes)).wire())

        return await self._read(read)

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self.work.close()

    async def _read(self, read: Callable[[Connection[Any]], bytes]) -> bytes:
        def work() -> bytes:
            try:
                with self._snapshot() as connection:
                    return read(connection)
            except ObjectStoreUnavailable:
                raise unavailable(Reason.STORE_DOWN, "the object store does not answer") from None

        return await self.work.answer(work, 0)

    @contextmanager
    def _snapshot(self) -> Iterator[Connection[Any]]:
        """A transaction that sees one state and changes none, whose statements end in time."""
        with self.work.pool().connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(_STATEMENT)
            yield connection


def _number(cursor: str | None) -> int | None:
    """The number that a cursor is.

    Raises:
        ContractError: INVALID_FIELD, it is none.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise _wrong_cursor()
    return int(cursor)


def _wrong_cursor() -> ContractError:
    return invalid(Reason.INVALID_FIELD, "cursor is the next_cursor of the page before, as it was given")


def _behind(rows: list[tuple[int, Any]], limit: int) -> str | None:
    return str(rows[limit - 1][0]) if len(rows) > limit else None
