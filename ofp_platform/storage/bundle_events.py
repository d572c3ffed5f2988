"""The steps of bundles in the database: one line of history for each run, appended by who holds it; and what is in force.

Sequences count from 0 without a gap. What is in force in a scope is what the last step of that scope says, so it follows from
any prefix of the line: by sequence, by a basis of control, or by time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from psycopg import Connection
from pydantic import ValidationError

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.bundle import (
    Bundle,
    BundleEvent,
    BundleInForce,
    BundleModel,
    BundleRef,
    BundleScope,
    BundleStep,
    Slot,
)
from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent, ScopeInForce
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.times import parse_time

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ofp.bundle_event/' || %s, 0))"
_ADD = """
    INSERT INTO ofp.bundle_event (
        pins_digest, sequence, step, bundle_name, bundle_digest, scope_key, at, partition_id, log_offset, position, content
    ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_ONE = "SELECT content, position FROM ofp.bundle_event WHERE pins_digest = %(run)s"
_LAST = f"{_ONE} ORDER BY sequence DESC LIMIT 1"
_LAST_OF_SCOPE = f"{_ONE} AND scope_key = %(scope)s ORDER BY sequence DESC LIMIT 1"
_STEP_OF_BUNDLE = f"""
    {_ONE} AND bundle_name = %(name)s AND bundle_digest = %(digest)s AND step = %(step)s ORDER BY sequence DESC LIMIT 1"""
_PAGE = f"""
    {_ONE} AND (%(before)s::bigint IS NULL OR sequence < %(before)s) ORDER BY sequence DESC LIMIT %(limit)s"""
_OF_SCOPE = """
    SELECT step, bundle_name, bundle_digest FROM ofp.bundle_event WHERE pins_digest = %s AND scope_key = %s ORDER BY sequence"""
_PREFIX = """
    (%(sequence)s::bigint IS NULL OR sequence <= %(sequence)s) AND (%(at)s::bigint IS NULL OR at <= %(at)s)
    AND (%(partitions)s::text[] IS NULL OR (
        position::jsonb ->> 'stream_name' = %(stream)s AND EXISTS (
            SELECT FROM unnest(%(partitions)s::text[], %(offsets)s::bigint[]) AS basis (partition_id, next_offset)
            WHERE basis.partition_id = e.partition_id AND e.log_offset < basis.next_offset
        )
    ))"""
_IN_FORCE = f"""
    SELECT bundle_name, bundle_digest, sequence, position FROM ofp.bundle_event AS e
    WHERE pins_digest = %(run)s AND scope_key = %(scope)s AND {_PREFIX} ORDER BY sequence DESC LIMIT 1"""
_ALL_IN_FORCE = f"""
    SELECT DISTINCT ON (scope_key) scope_key, bundle_name, bundle_digest, sequence, position FROM ofp.bundle_event AS e
    WHERE pins_digest = %(run)s AND scope_key IS NOT NULL AND {_PREFIX} ORDER BY scope_key, sequence DESC"""
_PUBLISHED = """
    SELECT bundle_name, bundle_digest FROM ofp.bundle_event
    WHERE pins_digest = %s AND step = 'PUBLISHED' AND bundle_name = %s AND starts_with(bundle_digest, %s) ORDER BY sequence"""


class NoSuchStep(ValueError):
    """The history of bundles does not reach as far as was asked."""


class BundleDamaged(Exception):
    """A bundle, or its model, is not there as its digest says, or this release does not know it; the text says which and why."""


class Moment(NamedTuple):
    """How much of the history counts: steps up to a sequence, up to a time (microseconds), before a basis of control; all of it
    where all are None."""

    at_sequence: int | None = None
    at_time: int | None = None
    at_basis: Basis | None = None

    def parameters(self) -> dict[str, Any]:
        """As the statements take them."""
        parts = None if self.at_basis is None else self.at_basis.partitions
        return {
            "sequence": self.at_sequence,
            "at": self.at_time,
            "stream": None if self.at_basis is None else self.at_basis.stream_name,
            "partitions": None if parts is None else [part.partition_id for part in parts],
            "offsets": None if parts is None else [int(part.offset) for part in parts],
        }


NOW = Moment()
"""The whole history."""


def lock_bundles(connection: Connection[Any], pins: ContextPins) -> None:
    """Until the transaction ends, nobody else appends a step of the run."""
    connection.execute(_LOCK, (pins_digest(pins),))


def append_bundle_event(connection: Connection[Any], event: BundleEvent, position: Position) -> None:
    """Append a step, in the caller's transaction, which holds the run (`lock_bundles`) and appended the message on control.

    Raises:
        psycopg.errors.UniqueViolation: the sequence is taken, which nobody sees who holds the run.
    """
    where = canonical_bytes(position.model_dump(mode="json", exclude_none=True)).decode()
    connection.execute(
        _ADD,
        (
            pins_digest(event.context_pins),
            event.sequence,
            event.step,
            event.bundle.bundle_name,
            event.bundle.digest,
            None if event.scope is None else event.scope.key,
            parse_time(event.at_utc),
            position.partition_id,
            int(position.offset),
            where,
            canonical_bytes(event.wire()).decode(),
        ),
    )


def last_bundle_event(connection: Connection[Any], pins: ContextPins) -> RecordedBundleEvent | None:
    """The last step of a run; None: there is none."""
    return _step(connection, _LAST, {"run": pins_digest(pins)})


def last_of_scope(connection: Connection[Any], pins: ContextPins, scope: BundleScope) -> RecordedBundleEvent | None:
    """The step that says what is in force in a scope; None: nothing was ever."""
    return _step(connection, _LAST_OF_SCOPE, {"run": pins_digest(pins), "scope": scope.key})


def step_of_bundle(
    connection: Connection[Any], pins: ContextPins, bundle: BundleRef, step: BundleStep
) -> RecordedBundleEvent | None:
    """The last step of that kind that a bundle took; None: it took none."""
    names = {"name": bundle.bundle_name, "digest": bundle.digest, "step": step}
    return _step(connection, _STEP_OF_BUNDLE, {"run": pins_digest(pins), **names})


def steps_of_scope(connection: Connection[Any], pins: ContextPins, scope: BundleScope) -> list[tuple[BundleStep, BundleRef]]:
    """The bundles that were put in force in a scope, and how, the oldest first."""
    rows = connection.execute(_OF_SCOPE, (pins_digest(pins), scope.key)).fetchall()
    return [(BundleStep(step), BundleRef(bundle_name=name, digest=digest)) for step, name, digest in rows]


def list_bundle_events(
    connection: Connection[Any], pins: ContextPins, limit: int, before: int | None = None
) -> list[RecordedBundleEvent]:
    """Steps of a run, the newest first, of sequences below `before`."""
    rows = connection.execute(_PAGE, {"run": pins_digest(pins), "before": before, "limit": limit}).fetchall()
    return [_read(*row) for row in rows]


def find_bundles(connection: Connection[Any], pins: ContextPins, bundle_name: str, digits: str) -> list[BundleRef]:
    """The published bundles of a name whose digests begin so."""
    rows = connection.execute(_PUBLISHED, (pins_digest(pins), bundle_name, digits)).fetchall()
    return [BundleRef(bundle_name=name, digest=digest) for name, digest in rows]


def bundle_in_force(
    connection: Connection[Any],
    pins: ContextPins,
    scope: BundleScope,
    *,
    at_sequence: int | None = None,
    at_time: int | None = None,
    at_basis: Basis | None = None,
) -> BundleInForce | None:
    """The bundle in force in a scope of a run: behind the step of a sequence, at a time (microseconds), or under a basis of
    control; now, where none is given. None: nothing is. The same question has the same answer for good, once the step is there,
    or the time is over.

    Raises:
        NoSuchStep: there is no step of that sequence yet.
    """
    moment = Moment(at_sequence, at_time, at_basis)
    _demand_reached(connection, pins, moment)
    row = connection.execute(_IN_FORCE, {"run": pins_digest(pins), "scope": scope.key, **moment.parameters()}).fetchone()
    return None if row is None else _in_force(*row)


def all_in_force(connection: Connection[Any], pins: ContextPins, moment: Moment = NOW) -> list[ScopeInForce]:
    """The bundle in force in each scope of a run that ever had something, by scope.

    Raises:
        NoSuchStep: see `bundle_in_force`.
    """
    _demand_reached(connection, pins, moment)
    rows = connection.execute(_ALL_IN_FORCE, {"run": pins_digest(pins), **moment.parameters()}).fetchall()
    return [ScopeInForce(scope=_scope(key), in_force=_in_force(*row)) for key, *row in rows]


def bundle_path(bundle: BundleRef) -> str:
    """Where a bundle stands in the object store."""
    return f"bundles/{bundle.bundle_name}/{bundle.digest}.json"


def load_bundle(objects: ObjectStore, bundle: BundleRef) -> Bundle:
    """A bundle as it was published.

    Raises:
        BundleDamaged: it is not there, has another digest, or is of a contract version that is not known here.
        ObjectStoreUnavailable: the store does not answer.
    """
    content = _content(objects, bundle_path(bundle), bundle.digest, "bundle")
    try:
        loaded_bundle = Bundle.model_validate_json(content)
    except ValidationError:
        raise BundleDamaged(_unknown_form(bundle_path(bundle), content, "bundle")) from None
    if loaded_bundle.ref != bundle:
        raise BundleDamaged(f"{bundle_path(bundle)} holds bundle {loaded_bundle.bundle_name}, or not in its canonical form")
    return loaded_bundle


def load_bundle_model(objects: ObjectStore, model: BundleModel) -> ExactModel:
    """The model of a bundle.

    Raises:
        BundleDamaged | ObjectStoreUnavailable: as for `load_bundle`.
    """
    content = _content(objects, model.path, model.digest, "model")
    try:
        return ExactModel.model_validate_json(content)
    except ValidationError:
        raise BundleDamaged(_unknown_form(model.path, content, "model in exact form")) from None


def _content(objects: ObjectStore, path: str, digest: str, words: str) -> bytes:
    try:
        content = objects.get(path)
    except ObjectNotFound:
        raise BundleDamaged(f"the {words} {path} is not in {objects.url}: bring it back, or publish it again") from None
    if sha256_hex(content) != digest:
        raise BundleDamaged(f"the {words} {path} in {objects.url} has digest {sha256_hex(content)}, not {digest}: it was changed")
    return content


def _unknown_form(path: str, content: bytes, words: str) -> str:
    try:
        version = orjson.loads(content)["contract_version"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"{path} is no {words}"
    return f"{path} is no {words} that this release knows: it says contract version {str(version)[:20]!r}"


def _demand_reached(connection: Connection[Any], pins: ContextPins, moment: Moment) -> None:
    if moment.at_sequence is None:
        return
    last_event = last_bundle_event(connection, pins)
    if last_event is None or not 0 <= moment.at_sequence <= last_event.event.sequence:
        reach = "no steps yet" if last_event is None else f"steps 0 to {last_event.event.sequence}"
        raise NoSuchStep(f"there is no step {moment.at_sequence} of bundles of run {pins.run_id!r}: it has {reach}")


def _step(connection: Connection[Any], statement: str, parameters: dict[str, Any]) -> RecordedBundleEvent | None:
    row: Sequence[Any] | None = connection.execute(statement, parameters).fetchone()
    return None if row is None else _read(*row)


def _read(content: str, position: str) -> RecordedBundleEvent:
    return RecordedBundleEvent(event=BundleEvent.model_validate_json(content), position=Position.model_validate_json(position))


def _in_force(name: str, digest: str, sequence: int, position: str) -> BundleInForce:
    return BundleInForce(
        bundle=BundleRef(bundle_name=name, digest=digest), sequence=sequence, position=Position.model_validate_json(position)
    )


def _scope(key: str) -> BundleScope:
    environment, mode, slot = key.rsplit("/", 2)
    return BundleScope(environment=environment, mode=TrafficMode(mode), slot=Slot(slot))
