"""From evaluations to the bytes of a snapshot: values, freshness, warnings, hash. Both planes answer with this.

Pure: evaluations, question, basis and posture come in as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.answer_form import AnswerConstants, AnswerForm, GroupForm, KeyForm
from ofp_platform.kernel.entity_events import ResolvedEvents
from ofp_platform.kernel.query import LayoutArrays, Query, query_of
from ofp_platform.kernel.windows import KeyEvents
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.serving import GraphVersion, IdentityConflict
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time, parse_time

_FIRST_TIME = parse_time("0001-01-01T00:00:00Z")
_MOST_FORMS = 4096


class MadeUnder(NamedTuple):
    """The digests that all answers of a maker were made under."""

    pins_digest: str
    registry_digest: str
    run_config_digest: str


class EntityLike(Protocol):
    """An entity, as the graph tells it."""

    @property
    def members(self) -> tuple[str, ...]: ...

    @property
    def conflicts(self) -> tuple[IdentityConflict, ...]: ...


@dataclass(frozen=True)
class Resolution:
    """The answer of the graph about the keys of a question.

    `graph_version`: canonical text of the version; `members`: by key of a type of which a group resolves, the ids of its entity,
    sorted, and `conflicts`: the links that touch these and do not count.
    """

    graph_version: str
    members: Mapping[tuple[str, str], tuple[str, ...]]
    conflicts: Mapping[tuple[str, str], tuple[IdentityConflict, ...]]

    @classmethod
    def of(cls, version: GraphVersion, entities: Mapping[tuple[str, str], EntityLike]) -> Resolution:
        """From the entities of the keys by a version of the graph."""
        return cls(
            canonical_bytes(version.model_dump(mode="json")).decode(),
            {key: entity.members for key, entity in entities.items()},
            {key: entity.conflicts for key, entity in entities.items() if entity.conflicts},
        )

    def members_of(self, key: tuple[str, str]) -> tuple[str, ...]:
        """The ids of the entity of a key where these are several; else none: it is read by itself."""
        members = self.members.get(key, ())
        return members if len(members) > 1 else ()

    def warnings(self, question: Question) -> list[dict[str, Any]]:
        """One for each conflict of a key and each group that resolves it."""
        return [
            {
                "code": "IDENTITY_CONFLICT",
                "key_type": key[0],
                "key_id": key[1],
                "group_name": group.name,
                "group_version": group.version,
                "conflict": {"kind": conflict.kind, "key_ids": list(conflict.key_ids)},
            }
            for key, conflicts in self.conflicts.items()
            for conflict in conflicts
            for group in question.groups_of[key[0]]
            if group.resolves
        ]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `body`: canonical bytes of the response; `hashed`: the bytes that `hash` is the SHA-256 of.

    `missing` counts the groups that were served for a key without data. `as_of` in microseconds, `basis` canonical; `graph`: the
    version of the identity graph, canonical, where it was asked.
    """

    body: bytes
    hash: str
    hashed: bytes
    missing: int
    as_of: int
    basis: str
    made_under: MadeUnder
    graph: str | None = None


class SnapshotMaker:
    """Makes answers under one registry, run and policy; everything derived from them is derived once."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, run_config_digest: str, allowed_lateness_us: int) -> None:
        self.registry = registry
        self.pins = pins
        self.run_config_digest = run_config_digest
        self.retained = registry.reach + allowed_lateness_us
        self._arrays = {key_type: LayoutArrays.of(layout) for key_type, layout in registry.layouts.items()}
        self._queries: dict[tuple[tuple[str, str], ...], Query] = {}
        self._forms: dict[tuple[tuple[str, str], ...], AnswerForm] = {}
        self._last_form: tuple[tuple[CompiledGroup, ...], AnswerForm | None] = ((), None)
        self._watermark_text: tuple[int | None, str | None] = (None, None)
        definitions = {"pack_id": registry.pack.pack_id, "revision": registry.pack.revision, "digest": registry.digest}
        self._made_under = MadeUnder(pins_digest(pins), registry.digest, run_config_digest)
        self._constants = AnswerConstants(
            orjson.Fragment(canonical_bytes(pins.wire())),
            orjson.Fragment(canonical_bytes(definitions)),
            registry.digest,
            run_config_digest,
        )

    def query(self, groups: tuple[CompiledGroup, ...]) -> Query:
        """The kernel's query for groups of one key type (kept: there are few combinations)."""
        key = tuple([(group.name, group.version) for group in groups])
        query = self._queries.get(key)
        if query is None:
            if len(self._queries) > _MOST_FORMS:
                self._queries.clear()
            query = self._queries[key] = query_of(self._arrays[groups[0].key_type], groups)
        return query

    def _form(self, question: Question) -> AnswerForm:
        """The form of the answers to the question's groups (kept likewise, and the last one by its very groups)."""
        last_groups, last_form = self._last_form
        if question.groups is last_groups and last_form is not None:
            return last_form
        key = tuple([(group.name, group.version) for group in question.groups])
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) > _MOST_FORMS:
                self._forms.clear()
            keys = {
                key_type: KeyForm(key_type, self.query(groups), [GroupForm(group) for group in groups])
                for key_type, groups in question.groups_of.items()
            }
            form = self._forms[key] = AnswerForm(self._constants, question.groups, keys)
        self._last_form = question.groups, form
        return form

    def horizon(self, watermark: int | None) -> int:
        """The time at or before which serving no longer knows events, microseconds."""
        return EARLIEST if watermark is None else watermark - self.retained

    def freshness_horizon(self, question: Question, watermark: int | None) -> int:
        """The time at or before which no event counts for freshness, microseconds.

        That is the horizon. A question behind it is answered by a forensic rebuild, from all events: it has none.
        """
        horizon = self.horizon(watermark)
        return EARLIEST if question.as_of - self._form(question).reach < horizon else horizon

    def snapshot(
        self,
        question: Question,
        basis: str,
        watermark: int | None,
        keys: Sequence[KeyEvents | ResolvedEvents],
        posture: Mapping[str, Any],
        *,
        behind_horizon: bool = False,
        resolution: Resolution | None = None,
    ) -> Answer:
        """Evaluate and encode. `keys`: the events of `question.keys` in their order, all of them at this basis.

        `basis` is the canonical text of the input basis. With `behind_horizon` a window may begin behind the horizon: for a
        caller that has all events. `resolution`: of a question of which a group resolves identities.

        Raises:
            EventsMissing: a segment that a query needs was not decoded.
            ContractError: AS_OF_BEFORE_HORIZON, or the request context does not fit.
        """
        form = self._form(question)
        if not behind_horizon and question.as_of - form.reach < self.horizon(watermark):
            raise self._behind(form.reach, self.horizon(watermark))
        parts, missing = self._parts(form, question, basis, watermark, keys, resolution)
        hashed = form.hash_input(*parts).encode()
        digest = sha256_hex(hashed)
        request_id, extensions = question.request.request_id, question.request.extensions
        body = form.body(
            *parts,
            digest=f'"{digest}"',
            posture=self._posture(posture, question.as_of, watermark),
            request_id="null" if request_id is None else f'"{request_id}"',
            extensions="null" if extensions is None else ijson_bytes(extensions).decode(),
        )
        graph = None if resolution is None else resolution.graph_version
        return Answer(body.encode(), digest, hashed, missing, question.as_of, basis, self._made_under, graph)

    def hashed(
        self,
        question: Question,
        basis: str,
        watermark: int | None,
        keys: Sequence[KeyEvents | ResolvedEvents],
        resolution: Resolution | None = None,
    ) -> bytes:
        """The bytes that the snapshot's hash is over, and nothing else; arguments as in `snapshot`, behind the horizon too.

        Raises:
            EventsMissing: a segment that a query needs was not decoded.
            ContractError: the request context does not fit.
        """
        form = self._form(question)
        parts, _ = self._parts(form, question, basis, watermark, keys, resolution)
        return form.hash_input(*parts).encode()

    def _parts(
        self,
        form: AnswerForm,
        question: Question,
        basis: str,
        watermark: int | None,
        keys: Sequence[KeyEvents | ResolvedEvents],
        resolution: Resolution | None,
    ) -> tuple[tuple[str, str, str, str | None, str, str | None, str, str], int]:
        """The texts that fill the form, and how many groups were served for a key without data."""
        horizon = self.freshness_horizon(question, watermark)
        as_of = question.as_of
        named_keys: list[str] = []
        values: list[str] = []
        freshness: list[str] = []
        warnings: list[dict[str, Any]] = [] if resolution is None else resolution.warnings(question)
        for (key_type, key_id), events in zip(question.keys, keys, strict=True):
            part = form.keys[key_type]
            id_text = orjson.dumps(key_id).decode()
            texts = part.texts(key_id, id_text, events, as_of, horizon, question.context, warnings)
            values.append(texts[0])
            freshness.append(texts[1])
            named_keys.append(part.key % id_text)
        missing = 0
        warnings_text = "[]"
        if warnings:
            warnings.sort(key=_warning_order)
            missing = sum(1 for warning in warnings if warning["code"] == "NO_DATA")
            warnings_text = canonical_bytes(warnings).decode()
        parts = (
            f'"{question.request.as_of_time_utc}"',
            f"[{','.join(named_keys)}]",
            f"[{','.join(freshness)}]",
            None if resolution is None else resolution.graph_version,
            basis,
            None if question.context is None else canonical_bytes(question.context).decode(),
            f"[{','.join(values)}]",
            warnings_text,
        )
        return parts, missing

    def _behind(self, reach: int, horizon: int) -> Exception:
        text = format_time(horizon) if horizon >= _FIRST_TIME else "before year 1"  # such a horizon has no calendar time
        return invalid(
            Reason.AS_OF_BEFORE_HORIZON,
            f"a requested window begins {reach // MICROS_PER_SECOND} s before the as-of, behind the horizon {text};"
            " a forensic rebuild from the archive answers it",
            self.pins,
        )

    def _posture(self, posture: Mapping[str, Any], as_of: int, watermark: int | None) -> str:
        known, text = self._watermark_text
        if known != watermark:
            text = None if watermark is None else format_time(watermark)
            self._watermark_text = (watermark, text)
        age = None if watermark is None else (as_of - watermark) // MICROS_PER_SECOND
        return canonical_bytes({**posture, "watermark_utc": text, "watermark_age_seconds": age}).decode()


def _warning_order(warning: Mapping[str, Any]) -> tuple[Any, ...]:
    where = warning["code"], warning["key_type"], warning["key_id"], warning["group_name"], warning["group_version"]
    conflict = warning.get("conflict")
    return *where, warning.get("feature", ""), *(() if conflict is None else (conflict["kind"], conflict["key_ids"]))
