"""Put a planned pack live, as one recorded operation: build beside, while everything goes on; compare; switch; go back.

The build takes a share of the time only, in commits of bounded size, so that who is live stays fresh. Stopped anywhere, the
same call goes on where it was: the projection beside keeps what was folded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from ofp_platform.log.governance_log import append_facts, append_facts_with
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.ranges.comparison import HistoryFold
from ofp_platform.online.ranges.pack_plan import PlanRefused
from ofp_platform.online.ranges.rebuild import RebuildReceipt, RebuildRefused, switch_live
from ofp_platform.online.state.projection import ProjectionRow, UnknownProjection
from ofp_platform.registry.pack import pack_digest
from ofp_platform.storage.pack_operations import last_switch
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.offline.governance_fact import PackOperation
from ofp_platform.vocabulary.pack_plan import PackPlan
from ofp_platform.vocabulary.times import format_time

BATCH_RECORDS = 20_000
SHARE = 0.5
Step = Literal["begun", "switched", "refused", "rolled_back"]


@dataclass(frozen=True)
class Order:
    """Who asked for an operation, why and when (microseconds). `share`: of the time that the build works, above 0, at most 1."""

    actor: str
    reason: str
    at: int
    share: float = SHARE


@dataclass
class _Pace:
    """Commits of a build, with a pause behind each. `seconds`: of working."""

    share: float
    on_commit: Callable[[ApplyReceipt], None]
    records: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, receipt: ApplyReceipt) -> None:
        work_seconds = time.perf_counter() - self._began
        self.seconds += work_seconds
        self.records += receipt.records
        self.on_commit(receipt)
        time.sleep(work_seconds * (1 - self.share) / self.share)
        self._began = time.perf_counter()


def apply_plan(
    plane: Plane,
    plan: PackPlan,
    fold: HistoryFold,
    order: Order,
    on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None,
) -> RebuildReceipt:
    """Build the pack of the plane's profile beside the live one, compare, make it live. The pack is the one that was planned.

    Raises:
        PlanRefused: the live projection or the pack is another one than when it was planned.
        RebuildRefused: something differs, or was not compared: the new one stays beside, and the refusal is recorded.
        as `rebuild`.
    """
    live = plane.ensure_live()
    for now, then, subject in (
        (live.registry_digest, plan.live_registry, "registry that is live"),
        (pack_digest(profile_pack(plane.profile)), plan.new_registry, "pack"),
    ):
        if now != then:
            raise PlanRefused(f"the {subject} changed since it was planned ({then[:12]}, now {now[:12]}): `ofp plan` it again")
    beside = plane.open_beside()
    if plan.unchanged:
        return RebuildReceipt(live, beside, 0, 0, None)
    return _Operation(plane, plan.digest(), live, beside, order).run("switched", fold, on_commit)


def roll_back(
    plane: Plane, fold: HistoryFold, order: Order, on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None
) -> RebuildReceipt:
    """Make the projection live again that the last operation retired: brought to the basis of the live one, compared.

    Raises:
        PlanRefused: no operation made the live one live, or the state of the former one was removed since.
        RebuildRefused: something differs.
    """
    live = plane.ensure_live()
    switch = last_switch(plane.pool, live.stream_name, live.pins, live.projection_id)
    if switch is None:
        raise PlanRefused(
            f"projection {live.projection_id} was made live by no operation that can be gone back on (`ofp governance list"
            " --fact pack_operation`): plan the pack that is to be live (`ofp plan PACK`)"
        )
    try:
        former = plane.row(switch.from_projection)
    except UnknownProjection:
        raise PlanRefused(
            f"projection {switch.from_projection} was kept until {switch.kept_until_utc} and is gone: plan its pack again"
            f" (registry {switch.from_registry[:12]}; `ofp plan PACK`)"
        ) from None
    return _Operation(plane, switch.plan_digest, live, former, order).run("rolled_back", fold, on_commit)


@dataclass(frozen=True)
class _Operation:
    plane: Plane
    plan_digest: str
    live: ProjectionRow
    beside: ProjectionRow
    order: Order

    def run(self, outcome: Step, fold: HistoryFold, on_commit: Callable[[ApplyReceipt], None]) -> RebuildReceipt:
        """Build, compare, switch, with a fact of each."""
        plane, live, beside = self.plane, self.live, self.beside
        append_facts(plane.pool, [self._fact("begun")])
        pace = _Pace(self.order.share, on_commit)
        batch = min(BATCH_RECORDS, plane.profile.batch_records)
        apply_until(plane.projector(beside), plane.row(live.projection_id).basis, batch, pace)

        def record_switch(connection: Connection[Any], receipt: RebuildReceipt) -> None:
            append_facts_with(connection, [self._fact(outcome, pace=pace, receipt=receipt)])

        try:
            return switch_live(
                plane,
                beside.registry_digest,
                fold,
                beside=beside,
                on_switch=record_switch,
            )
        except RebuildRefused as refusal:
            append_facts(plane.pool, [self._fact("refused", pace=pace, refusal=str(refusal))])
            raise

    def _fact(
        self, step: Step, *, pace: _Pace | None = None, receipt: RebuildReceipt | None = None, refusal: str | None = None
    ) -> PackOperation:
        order, live, beside = self.order, self.live, self.beside
        comparison = None if receipt is None else receipt.comparison
        kept_until = None if receipt is None else order.at + self.plane.profile.retention.retired_projections_us
        return PackOperation(
            operation_id=digest_of({"plan": self.plan_digest, "from": live.projection_id, "at": order.at}),
            step=step,
            plan_digest=self.plan_digest,
            stream_name=live.stream_name,
            context_pins=live.pins,
            from_projection=live.projection_id,
            from_registry=live.registry_digest,
            to_projection=beside.projection_id,
            to_registry=beside.registry_digest,
            actor=order.actor,
            reason=order.reason,
            at_utc=format_time(order.at),
            records=0 if pace is None else pace.records,
            milliseconds=0 if pace is None else round(pace.seconds * 1000),
            compared_groups=0 if comparison is None else len(comparison.compared_keys),
            compared_keys=0 if comparison is None else comparison.keys,
            served_hash=None if comparison is None else comparison.beside_hash,
            basis=None if receipt is None else receipt.beside.basis,
            kept_until_utc=None if kept_until is None else format_time(kept_until),
            refusal=refusal,
        )
