"""Actions that investigators asked for in cases, made intents by who acts: once each, however often it is looked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ofp_platform.actions.intents import record_intents
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.case_entries import RequestedAction, last_entry, requested_actions
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, OriginKind, target_of

PAGE = 500
_WHOLE_LOOK_SECONDS = 60.0


@dataclass
class CaseRequests:
    """Collects requests again and again. Entries are numbered as they become visible, so those it has seen it leaves out; from
    time to time, and behind anything that went wrong, it looks at all of them. `clock`: seconds that never go back.
    """

    pool: Pool
    log: PostgresLog
    pins: ContextPins
    policy_rev: str
    clock: Callable[[], float]
    _seen_entry: int = field(default=-1, init=False)
    _whole_at: float | None = field(default=None, init=False)

    def collect(self) -> int:
        """Record the intents of what was asked for and has none yet; how many.

        Raises:
            MessageRefused | LogUnsettled | StreamNotFound | psycopg.Error: see `record_intents`; pages before that one are
                recorded.
        """
        seen_entry, whole_at, self._whole_at = self._seen_entry, self._whole_at, None
        with self.pool.connection() as connection:
            last = last_entry(connection, self.pins)
            if whole_at is None or last < seen_entry or self.clock() - whole_at >= _WHOLE_LOOK_SECONDS:
                seen_entry, whole_at = -1, self.clock()
            new_count = 0
            while seen_entry < last:  # a page at a time, and none twice: what is refused does not stand in front of the others
                requests = requested_actions(connection, self.pins, PAGE, seen_entry)
                with connection.transaction():
                    receipt = record_intents(connection, self.log, [self._intent(request) for request in requests])
                if receipt.new_intents:
                    self.log.tell(connection)
                new_count += len(receipt.new_intents)
                seen_entry = requests[-1].sequence if len(requests) == PAGE else last
        self._seen_entry, self._whole_at = max(seen_entry, last), whole_at
        return new_count

    def _intent(self, request: RequestedAction) -> ActionIntent:
        return ActionIntent.create(
            origin=ActionOrigin(origin_kind=OriginKind.CASE, reference=f"{request.case_id}/{request.sequence}"),
            action_type=request.content.action_type,
            target=target_of(request.content.target),
            context_pins=self.pins,
            actor=request.actor,
            reason=request.content.reason[:400],
            policy_rev=self.policy_rev,
            at_utc=request.at_utc,
        )
