"""Actions behind the HTTP service, of the run that is served: listed, shown, and settled in the role of who executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psycopg

from ofp_platform.actions.allow_list import ActionPolicyUnusable, load_action_policy
from ofp_platform.actions.settling import NothingToSettle, Settlement, settle
from ofp_platform.api.action_examples import UNKNOWN_ACTION
from ofp_platform.api.bounded_work import BoundedWork
from ofp_platform.api.record_requests import demand_words, read_model
from ofp_platform.api.service import MayRead
from ofp_platform.ingress.own_streams import MessageRefused
from ofp_platform.log.port import LogError
from ofp_platform.online.plane import NoDecisionsStream, Plane
from ofp_platform.storage.action_records import count_actions, page_of_actions, read_action
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.action_requests import ActionList, ActionSettlementAsk
from ofp_platform.vocabulary.profile import Profile

T = TypeVar("T")
_DOWN = "the database does not answer: whether anything was settled, GET /v0/actions/{idempotency_key} shows when it does"
_MOST_DIGITS = 18


class ActionRequests:
    """An ActionPort over one database, for the run of a profile. `dsn`: of a role that may execute; `policy_file`: the action
    policy, read at each settlement; `now`: microseconds since the epoch.
    """

    def __init__(self, profile: Profile, dsn: str, policy_file: Path, now: Callable[[], int]) -> None:
        self._profile = profile
        self._dsn = dsn
        self._policy_file = policy_file
        self._now = now
        self._work = BoundedWork(dsn, _DOWN, "actions")

    async def actions(self, state: ActionState | None, limit: int, cursor: str | None) -> bytes:
        """See ActionPort."""
        behind = None if cursor is None else _number(cursor)

        def read() -> bytes:
            pins = self._profile.context_pins
            with self._work.pool().connection() as connection:
                page = page_of_actions(connection, pins, state, limit, behind)
                counts = count_actions(connection, pins)
            next_cursor = None if page.behind is None else str(page.behind)
            return canonical_bytes(ActionList(counts=counts, actions=tuple(page.records), next_cursor=next_cursor).wire())

        return await self._work.answer(read, 0)

    async def action(self, idempotency_key: str, may_read: MayRead) -> bytes:
        """See ActionPort."""
        if not may_read(self._profile.context_pins):  # whether there is one, is not told either
            raise not_found(Reason.UNKNOWN_ACTION, UNKNOWN_ACTION)
        return await self._work.answer(lambda: self._read(idempotency_key), 0)

    async def settle(self, idempotency_key: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """See ActionPort."""
        ask = read_model(ActionSettlementAsk, body)
        if ask.context_pins != self._profile.context_pins or not may_read(ask.context_pins):
            words = f"run {ask.context_pins.run_id} with these pins is not known here"
            raise not_found(Reason.UNKNOWN_RUN, words, ask.context_pins)
        demand_words("reason", ask.reason)

        def work() -> bytes:
            self._read(idempotency_key)
            self._settle(Settlement(idempotency_key, ask.is_done, actor, ask.reason, self._now))
            return self._read(idempotency_key)

        return await self._work.answer(lambda: _refused_in_words(work), len(body))

    async def close(self) -> None:
        """See ActionPort."""
        await self._work.close()

    def _read(self, idempotency_key: str) -> bytes:
        with self._work.pool().connection() as connection:
            record = read_action(connection, self._profile.context_pins, idempotency_key)
        if record is None:
            raise not_found(Reason.UNKNOWN_ACTION, UNKNOWN_ACTION)
        return canonical_bytes(record.wire())

    def _settle(self, settlement: Settlement) -> None:
        pool, policy = self._work.pool(), load_action_policy(self._policy_file)
        log = Plane(self._profile, self._dsn, pool, None).decisions_log()
        with pool.connection() as connection:
            with connection.transaction():
                settle(connection, log, self._profile.context_pins, policy, settlement)
            log.tell(connection)


def _refused_in_words(work: Callable[[], T]) -> T:
    """Raises: ContractError: ACTION_NOT_NOW; FORBIDDEN; INVALID_FIELD; STORE_DOWN."""
    try:
        return work()
    except (NothingToSettle, ActionPolicyUnusable, NoDecisionsStream) as error:
        raise invalid(Reason.ACTION_NOT_NOW, str(error)) from None
    except MessageRefused as error:
        raise invalid(Reason.INVALID_FIELD, str(error)) from None
    except psycopg.errors.InsufficientPrivilege:
        words = "the role of this service may not settle actions: name one of an executor by OFP_EXECUTOR_DATABASE_URL"
        raise invalid(Reason.FORBIDDEN, words) from None
    except LogError as error:
        raise unavailable(Reason.STORE_DOWN, str(error)) from None


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MOST_DIGITS):
        raise invalid(Reason.INVALID_FIELD, "cursor is the next_cursor of a list")
    return int(cursor)
