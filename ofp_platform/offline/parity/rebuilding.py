"""Snapshots out of a folded replay: many questions, each at its own basis, evaluated together and encoded one by one.

All rows of one key are evaluated in one call of the kernel; what each may know of the key's events is one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.kernel.sliding import Evaluations
from ofp_platform.kernel.snapshot import SnapshotMaker
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
from ofp_platform.vocabulary.position import Basis, basis_text

Int64s = npt.NDArray[np.int64]
_Groups = tuple[CompiledGroup, ...]


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
    """A question and the basis that it is answered at; `text` is the canonical text of the basis."""

    question: Question
    basis: Basis
    text: str

    @classmethod
    def of(cls, question: Question, basis: Basis) -> QuestionAt:
        """With the text of the basis."""
        return cls(question, basis, basis_text(basis))


@dataclass(frozen=True, eq=False)
class Found:
    """What the kernel found for some questions. `rows[i]`: per key of question i the evaluations and the place in them;
    `watermarks[i]`: of its basis, microseconds."""

    rows: list[list[tuple[Evaluations, int]]]
    watermarks: list[int | None]

    def keys(self, number: int) -> list[Evaluation]:
        """The evaluations of one question's keys, in their order."""
        return [evaluations.at(row) for evaluations, row in self.rows[number]]


class Rebuilder:
    """Answers questions from one folded replay. Not safe for threads."""

    def __init__(self, run: ReplayedRun) -> None:
        self.run = run
        self.registry: CompiledRegistry = compile_pack(run.pack)
        self.maker = SnapshotMaker(self.registry, run.pins, run.run_config_digest, run.allowed_lateness_us)
        self.index = EventIndex(run.knowledge.folded, self.registry)
        self.names = EventNames(run.knowledge.folded)
        self._plans: dict[tuple[tuple[str, str], ...], ColumnQuery] = {}

    def hashed(self, asked: Sequence[QuestionAt]) -> list[bytes | ContractError]:
        """What the snapshot hash of each answer is over; an error where a value cannot be served.

        Every basis must lie in the replay (`Knowledge.lacks`). Behind the serving horizon, too, there is an answer.
        """
        return self.encode(asked, self.evaluate(asked, self.run.knowledge.bounds([one.basis for one in asked])))

    def encode(self, asked: Sequence[QuestionAt], found: Found) -> list[bytes | ContractError]:
        """The same of what was found already."""
        made: list[bytes | ContractError] = []
        for number, one in enumerate(asked):
            try:
                made.append(self.maker.hashed(one.question, one.text, found.watermarks[number], found.keys(number)))
            except ContractError as error:
                made.append(error)
        return made

    def evaluate(self, asked: Sequence[QuestionAt], bounds: Int64s) -> Found:
        """Evaluate every key of every question over the events that come before `bounds[i]` (see `Knowledge.bounds`)."""
        watermarks = self.run.knowledge.watermarks(bounds)
        horizons = [self.maker.horizon(watermark) for watermark in watermarks]
        chains = chains_of(bounds)
        rows: list[list[tuple[Evaluations, int]]] = [[None] * len(one.question.keys) for one in asked]  # type: ignore[list-item]
        together: dict[tuple[tuple[str, str], ...], tuple[_Groups, list[tuple[int, int]]]] = {}
        names_of: dict[int, dict[str, tuple[tuple[str, str], ...]]] = {}  # most questions share their groups
        for number, one in enumerate(asked):
            groups_of = one.question.groups_of
            names = names_of.get(id(groups_of))
            if names is None:
                names = names_of[id(groups_of)] = {key_type: _names(groups) for key_type, groups in groups_of.items()}
            for place, (key_type, _) in enumerate(one.question.keys):
                own = together.get(names[key_type])
                if own is None:
                    own = together[names[key_type]] = groups_of[key_type], []
                own[1].append((number, place))
        for groups, places in together.values():
            self._evaluate_type(groups, places, asked, chains, horizons, rows)
        return Found(rows, watermarks)

    def _evaluate_type(
        self,
        groups: _Groups,
        places: list[tuple[int, int]],
        asked: Sequence[QuestionAt],
        chains: Chains,
        horizons: list[int],
        rows: list[list[tuple[Evaluations, int]]],
    ) -> None:
        plan = self.plan(groups)
        codes_of: dict[str, int] = {}
        codes = np.array([codes_of.setdefault(asked[number].question.keys[place][1], len(codes_of)) for number, place in places])
        numbers = np.array([number for number, _ in places], np.int64)
        times = np.array([one.question.as_of for one in asked], np.int64)[numbers]
        limits = np.array(horizons, np.int64)[numbers]
        after = np.full(len(codes_of), np.iinfo(np.int64).max)
        until = np.full(len(codes_of), EARLIEST)
        np.minimum.at(after, codes, np.minimum(times - np.minimum(plan.reach, times - EARLIEST), limits))
        np.maximum.at(until, codes, times)
        events = self.index.events(groups[0].key_type, list(codes_of), after, until)
        chain_of, ranks = chains.chain[numbers], chains.rank[numbers]
        for number in np.unique(chain_of).tolist():
            own = np.flatnonzero(chain_of == number)
            own = own[np.lexsort((times[own], codes[own]))]
            known = known_from(chains.chains[number], events.matrix.shape[1], events.copies)
            found = evaluate_known(
                plan,
                KeyedEvents(events.matrix, events.starts, events.ends, known),
                KeyedRows(np.searchsorted(codes[own], np.arange(len(codes_of) + 1)), times[own], ranks[own]),
                limits[own],
            )
            for row, index in enumerate(own.tolist()):
                question, place = places[index]
                rows[question][place] = found, row

    def plan(self, groups: _Groups) -> ColumnQuery:
        """What the kernel is asked for groups of one key type (kept)."""
        names = _names(groups)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = ColumnQuery(LayoutArrays.of(self.registry.layouts[groups[0].key_type]), groups)
        return plan


def _names(groups: _Groups) -> tuple[tuple[str, str], ...]:
    return tuple([(group.name, group.version) for group in groups])
