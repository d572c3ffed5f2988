"""get_features as a library call: one statement, one basis, one answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from ofp_platform.identity.graph_state import query_links
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.serving.causal_read import (
    Incarnations,
    Partitions,
    has_reached,
    not_reached,
    refuse_foreign,
    refuse_lost,
)
from ofp_platform.online.serving.evaluation import Evaluator, StoredState
from ofp_platform.online.serving.plain_question import QuestionReader
from ofp_platform.online.serving.resolved_question import NO_GRAPH, Graph, ResolvedQuestion
from ofp_platform.online.serving.state_statement import (
    PLAIN_ARGUMENTS,
    READ_PLAIN,
    READ_SHARDS,
    SPLIT_LOOK_SECONDS,
    SPLIT_SECONDS,
    SplitEpoch,
    read_all,
    read_arguments,
    statement_after,
)
from ofp_platform.registry.question import Question, check_request
from ofp_platform.storage.notices import LOOK_SECONDS, PROJECTION_CHANNEL
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import Reason, unavailable
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest

PostureReader = Callable[[], Mapping[str, Any]]
UNOBSERVED: Mapping[str, Any] = {"state": "AMBER", "reasons": ["NOT_OBSERVED"], "lag_records": None}
"""The posture where nobody looked at the log: values are right, and how far they are behind is not known."""


class Reader:
    """Serves one projection, synchronously. Safe for threads; one pooled connection a call."""

    def __init__(
        self,
        pool: Pool,
        projection_id: int,
        evaluator: Evaluator,
        limits: Limits,
        posture: PostureReader = lambda: UNOBSERVED,
        partitions: Partitions | None = None,
        incarnations: Incarnations | None = None,
        *,
        graph: Graph = NO_GRAPH,
        look_seconds: float = LOOK_SECONDS,
        split_seconds: float = SPLIT_SECONDS,
    ) -> None:
        self._graph = graph
        self._pool = pool
        self._projection_id = projection_id
        self._evaluator = evaluator
        self._limits = limits
        self._posture = posture
        self._partitions = partitions
        self._incarnations = incarnations
        self._look_seconds = look_seconds
        self._split_seconds = split_seconds
        self._questions = QuestionReader(evaluator.registry, evaluator.pins, limits)
        self._statement = READ_PLAIN

    def answer(self, request: GetFeaturesRequest | bytes) -> Answer:
        """The answer to a request, or to the bytes of one.

        Raises:
            ContractError: every refusal of the contract.
        """
        if isinstance(request, bytes):
            question = self._questions.read(request)
        else:
            question = check_request(request, self._evaluator.registry, self._evaluator.pins, self._limits)
        try:
            if self._evaluator.registry.resolves and (keys := question.keys_to_resolve):
                return self._answer_resolved(question, keys)
            state = self._read(question)
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer", self._evaluator.pins) from None
        return self._evaluator.answer(question, state, self._posture())

    def _answer_resolved(self, question: Question, keys: list[tuple[str, str]]) -> Answer:
        pins = self._evaluator.pins
        with self._pool.connection() as connection:
            links = query_links(connection, self._graph.demand(pins), pins, keys)
        resolved = ResolvedQuestion.of(question, self._graph, links, pins)
        return resolved.answer(self._evaluator, self._read(resolved.reading), self._posture())

    def _read(self, question: Question) -> StoredState:
        wait_ms = self._limits.at_least_basis_wait_ms
        with self._pool.connection() as connection:
            state = self._query(connection, question)
            if has_reached(state.basis, question.request, self._incarnations):
                return state
            refuse_foreign(state.basis, question.request, self._partitions, self._incarnations)
            deadline = time.monotonic() + wait_ms / 1000
            connection.execute(f"LISTEN {PROJECTION_CHANNEL}")
            try:
                while True:
                    # listening comes before looking: a commit in between wakes us
                    state = self._query(connection, question)
                    if has_reached(state.basis, question.request, self._incarnations):
                        return state
                    seconds_left = deadline - time.monotonic()
                    if seconds_left <= 0:
                        refuse_lost(question.request, self._incarnations)
                        raise not_reached(question.request, wait_ms)
                    # to its end, never left half-way: the iterator holds the connection's lock. A notice may be lost
                    for _ in connection.notifies(timeout=min(seconds_left, self._look_seconds), stop_after=1):
                        pass
            finally:
                if not connection.closed:
                    connection.execute(f"UNLISTEN {PROJECTION_CHANNEL}")

    def _query(self, connection: Connection[Any], question: Question) -> StoredState:
        state = self._query_once(connection, question)
        deadline = time.monotonic() + self._split_seconds
        while isinstance(state, SplitEpoch):
            if time.monotonic() >= deadline:
                raise state.refusal(self._split_seconds, question.request.context_pins)
            time.sleep(SPLIT_LOOK_SECONDS)
            state = self._query_once(connection, question)
        return state

    def _query_once(self, connection: Connection[Any], question: Question) -> StoredState | SplitEpoch:
        arguments = read_arguments(self._projection_id, self._evaluator, [question])
        with RawCursor(connection) as cursor:
            statement, rows = self._statement, []
            if statement is READ_PLAIN:
                rows = cursor.execute(statement, arguments[:PLAIN_ARGUMENTS], binary=True).fetchall()
            if not rows:
                statement = READ_SHARDS
                rows = cursor.execute(statement, arguments, binary=True).fetchall()
        self._statement = statement_after(statement, rows, READ_PLAIN)
        return read_all(statement, rows, [question])[0]
