"""Snapshots out of a folded replay: many questions, each at its own basis, evaluated keys_by_groups and encoded one by one.

All rows of one key are evaluated in one call of the kernel; what each may know of the key's events is one comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import EARLIEST, times_before
from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows
from ofp_platform.kernel.entity_events import ResolvedEvents
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.kernel.sliding import Evaluations
from ofp_platform.kernel.snapshot import Resolution, SnapshotMaker
from ofp_platform.kernel.windows import Evaluation
from ofp_platform.offline.replay.event_index import EventIndex
from ofp_platform.offline.replay.event_names import EventNames
from ofp_platform.offline.replay.knowledge import Chains, Knowledge, chains_of, known_from
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.models import Pack
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.position import basis_text as text_of_basis

Int64s = npt.NDArray[np.int64]
_Groups = tuple[CompiledGroup, ...]
EvaluatedRow = tuple[Evaluations, int]
_KeyPlace = tuple[int, int, tuple[str, ...]]
"""A question, one of its keys, and the members of its entity; () is the key itself."""


@dataclass(frozen=True)
class ReplayedRun:
    """One run, folded under one pack and one run config: all that a rebuild needs. Can be sent to other processes."""

    knowledge: Knowledge
    pack: Pack
    pins: ContextPins
    run_config_digest: str
    allowed_lateness_us: int


@dataclass(frozen=True)
class QuestionAt:
    """A question and the basis that it is answered at; `basis_text` is the canonical text of the basis. `resolution`: of a
    question of which a group resolves identities.
    """

    question: Question
    basis: Basis
    basis_text: str
    resolution: Resolution | None = None

    @classmethod
    def of(cls, question: Question, basis: Basis, resolution: Resolution | None = None) -> QuestionAt:
        """The question with the text of its basis."""
        return cls(question, basis, text_of_basis(basis), resolution)

    def members_of(self, key: tuple[str, str]) -> tuple[str, ...]:
        """The ids of the entity of one of its keys, where these are several and a group resolves them; else none."""
        return () if self.resolution is None else self.resolution.members_of(key)

    def ids_of(self, key: tuple[str, str], group: CompiledGroup) -> tuple[str, ...]:
        """The ids of which the events count for a group of one of its keys."""
        return (self.members_of(key) if group.resolves else ()) or (key[1],)


@dataclass(frozen=True, eq=False)
class EvaluatedQuestions:
    """The kernel's results for some questions. `rows[i]`: per key of question i the evaluations and the row in them;
    `entity_rows[i]`: the same over the events of its entity, None where that has one member; `watermarks[i]`: of its basis,
    microseconds."""

    rows: list[list[EvaluatedRow]]
    entity_rows: list[list[EvaluatedRow | None]]
    watermarks: list[int | None]

    def keys(self, number: int) -> list[Evaluation | ResolvedEvents]:
        """The evaluations of one question's keys, in their order."""
        return [
            own[0].at(own[1]) if entity is None else ResolvedEvents(own[0].at(own[1]), entity[0].at(entity[1]))
            for own, entity in zip(self.rows[number], self.entity_rows[number], strict=True)
        ]


class Rebuilder:
    """Answers questions from one folded replay. Not safe for threads."""

    def __init__(self, run: ReplayedRun) -> None:
        self.run = run
        self.registry: CompiledRegistry = compile_pack(run.pack)
        self.maker = SnapshotMaker(self.registry, run.pins, run.run_config_digest, run.allowed_lateness_us)
        self.index = EventIndex(run.knowledge.folded_replay, self.registry)
        self.names = EventNames(run.knowledge.folded_replay)
        self._queries: dict[tuple[tuple[str, str], ...], ColumnQuery] = {}

    def hashed_bytes(self, questions: Sequence[QuestionAt]) -> list[bytes | ContractError]:
        """The bytes that the snapshot hash of each answer covers; an error where a value cannot be served.

        Every basis must lie in the replay (`Knowledge.lacks`). Questions behind the serving horizon are answered, too.
        """
        return self.encode(
            questions, self.evaluate(questions, self.run.knowledge.bounds([question.basis for question in questions]))
        )

    def encode(self, questions: Sequence[QuestionAt], evaluations: EvaluatedQuestions) -> list[bytes | ContractError]:
        """The same bytes, from evaluations that were made already."""
        results: list[bytes | ContractError] = []
        for number, question in enumerate(questions):
            try:
                results.append(
                    self.maker.hashed(
                        question.question,
                        question.basis_text,
                        evaluations.watermarks[number],
                        evaluations.keys(number),
                        question.resolution,
                    )
                )
            except ContractError as error:
                results.append(error)
        return results

    def evaluate(self, questions: Sequence[QuestionAt], bounds: Int64s) -> EvaluatedQuestions:
        """Evaluate every key of every question over the events that come before `bounds[i]` (see `Knowledge.bounds`)."""
        watermarks = self.run.knowledge.watermarks(bounds)
        horizons = [
            self.maker.freshness_horizon(question.question, watermark)
            for question, watermark in zip(questions, watermarks, strict=True)
        ]
        chains = chains_of(bounds)
        rows: list[list[EvaluatedRow]] = [[None] * len(question.question.keys) for question in questions]  # type: ignore[list-item]
        entity_rows: list[list[EvaluatedRow | None]] = [[None] * len(question.question.keys) for question in questions]
        keys_by_groups: dict[tuple[tuple[str, str], ...], tuple[_Groups, list[_KeyPlace]]] = {}
        names_of: dict[int, dict[str, tuple[tuple[str, str], ...]]] = {}  # most questions share their groups
        for number, question in enumerate(questions):
            groups_of = question.question.groups_of
            names = names_of.get(id(groups_of))
            if names is None:
                names = names_of[id(groups_of)] = {key_type: _names(groups) for key_type, groups in groups_of.items()}
            for index, key in enumerate(question.question.keys):
                key_type = key[0]
                entry = keys_by_groups.get(names[key_type])
                if entry is None:
                    entry = keys_by_groups[names[key_type]] = groups_of[key_type], []
                entry[1].append((number, index, ()))
                if members := question.members_of(key):
                    entry[1].append((number, index, members))
        for groups, question_keys in keys_by_groups.values():
            for place, evaluated_row in self._evaluate_type(groups, question_keys, questions, chains, horizons):
                number, index, members = place
                if members:
                    entity_rows[number][index] = evaluated_row
                else:
                    rows[number][index] = evaluated_row
        return EvaluatedQuestions(rows, entity_rows, watermarks)

    def _evaluate_type(
        self,
        groups: _Groups,
        question_keys: list[_KeyPlace],
        questions: Sequence[QuestionAt],
        chains: Chains,
        horizons: list[int],
    ) -> Iterator[tuple[_KeyPlace, EvaluatedRow]]:
        query = self.column_query(groups)
        codes_of: dict[tuple[str, ...], int] = {}
        codes = np.array(
            [
                codes_of.setdefault(members or (questions[number].question.keys[key_index][1],), len(codes_of))
                for number, key_index, members in question_keys
            ]
        )
        numbers = np.array([number for number, _, _ in question_keys], np.int64)
        times = np.array([item.question.as_of for item in questions], np.int64)[numbers]
        limits = np.array(horizons, np.int64)[numbers]
        after = np.full(len(codes_of), np.iinfo(np.int64).max)
        until = np.full(len(codes_of), EARLIEST)
        np.minimum.at(after, codes, np.minimum(times_before(times, query.reach), limits))
        np.maximum.at(until, codes, times)
        events = self.index.entity_events(groups[0].key_type, list(codes_of), after, until)
        chain_of, ranks = chains.chain[numbers], chains.rank[numbers]
        for number in np.unique(chain_of).tolist():
            chain_rows = np.flatnonzero(chain_of == number)
            chain_rows = chain_rows[np.lexsort((times[chain_rows], codes[chain_rows]))]
            known_from_ranks = known_from(chains.chains[number], events.matrix.shape[1], events.copies)
            evaluations = evaluate_known(
                query,
                KeyedEvents(events.matrix, events.starts, events.ends, known_from_ranks),
                KeyedRows(np.searchsorted(codes[chain_rows], np.arange(len(codes_of) + 1)), times[chain_rows], ranks[chain_rows]),
                limits[chain_rows],
            )
            for row, index in enumerate(chain_rows.tolist()):
                yield question_keys[index], (evaluations, row)

    def column_query(self, groups: _Groups) -> ColumnQuery:
        """The column query for groups of one key type (kept)."""
        names = _names(groups)
        query = self._queries.get(names)
        if query is None:
            query = self._queries[names] = ColumnQuery(LayoutArrays.of(self.registry.layouts[groups[0].key_type]), groups)
        return query


def _names(groups: _Groups) -> tuple[tuple[str, str], ...]:
    return tuple([(group.name, group.version) for group in groups])
