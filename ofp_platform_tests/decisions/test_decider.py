"""The decider on a real plane: each event once, under what is in force, recorded whole, and made again to the last byte."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.online.decided_run import decided_run
from ofp_platform.cli.online.decided_run import replay as replay_run
from ofp_platform.client import AsyncOfpClient, RetryPolicy
from ofp_platform.decisions.decided_span import DecidedRun, DecisionsUnread, PastDecision
from ofp_platform.decisions.decider import Decider, DeciderPolicy, PostureUnsteady
from ofp_platform.decisions.in_force import InForce
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import ReplayTally, redecide
from ofp_platform.decisions.replaying import ReplayBroken
from ofp_platform.decisions.what_if import Alternative, Cause, WhatIf
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.bundle_events import BundleDamaged, bundle_path
from ofp_platform.storage.decider_places import PlaceMoved
from ofp_platform.storage.decision_records import append_decisions, decided_parts
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleInForce, Slot
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, loop_decision_id
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import NOTHING_SAID, Mode, PostureInForce
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform_tests.api.keys import KEY
from ofp_platform_tests.decisions.conftest import BIG_AMOUNT, DECIDED_AT, Served, make_bundle, publish
from ofp_platform_tests.oracle.simulated_log import append, deliveries

POLICY = DeciderPolicy(policy_rev=f"1.{'0' * 64}", fail_closed="decline", deadline_seconds=20.0)


def posture(mode: Mode, sequence: int = 0) -> PostureInForce:
    at = Position(stream_name="control", partition_id="0000", offset=sequence)
    return PostureInForce(mode=mode, sequence=sequence, position=at)


@dataclass
class Held:
    """What is in force: as read, and then, at each commit, what comes next, as if somebody had changed it meanwhile."""

    now: InForce
    then: list[InForce] = field(default_factory=list)

    def read(self, connection: Any) -> InForce:
        return self.now

    def hold(self, connection: Any) -> InForce:
        if self.then:
            self.now = self.then.pop(0)
        return self.now


@dataclass
class World:
    served: Served
    objects: ObjectStore
    decisions_log: PostgresLog

    def bundle(self, **changes: Any) -> tuple[Bundle, BundleInForce]:
        registry = self.served.plane.registry_of(self.served.plane.ensure_live())
        bundle = make_bundle(registry.digest, **changes)
        return bundle, publish(self.objects, bundle)

    def in_force(self, mode: Mode = Mode.NORMAL, *, shadow: BundleInForce | None = None, **changes: Any) -> InForce:
        bundles = [(Slot.ACTIVE, self.bundle(**changes)[1])]
        return InForce(posture(mode), (*bundles, *([(Slot.SHADOW, shadow)] if shadow else [])))

    @asynccontextmanager
    async def decider(
        self, held: Held, ask: Callable[..., Any] | None = None, policy: DeciderPolicy = POLICY
    ) -> AsyncIterator[Decider]:
        retries = RetryPolicy(attempts=1)
        async with AsyncOfpClient(self.served.address, token=KEY, timeout_seconds=20.0, retries=retries) as client:
            ticks = count(DECIDED_AT)
            yield Decider(
                self.served.plane.pool,
                self.decisions_log,
                self.served.reader(),
                ask or client.ask,
                held,
                ReadyBundles(self.objects).load,
                policy,
                lambda: next(ticks),
            )

    def records(self) -> list[DecisionRecord]:
        with self.served.plane.pool.connection() as connection:
            rows = connection.execute("SELECT content FROM ofp.decision_record ORDER BY decision_id").fetchall()
        return [DecisionRecord.model_validate_json(content) for (content,) in rows]

    def told(self) -> list[dict[str, Any]]:
        """What stands on the stream of decisions."""
        batch = self.decisions_log.read("0000", None, 10_000)
        return [orjson.loads(payload) for payload in batch.payloads]

    def past(self) -> list[PastDecision]:
        run = self.run()
        return [one for part in run.parts() for page in run.pages_of(part, 100) for one in page]

    def run(self) -> DecidedRun:
        return decided_run(self.served.plane)

    def wait_stored(self, count: int) -> None:
        """The service stores what it served beside answering, on its own time: it is looked for until it is there."""
        deadline = time.monotonic() + 60
        while True:
            with self.served.plane.pool.connection() as connection:
                row = connection.execute("SELECT count(*) FROM ofp.snapshot_index").fetchone()
            assert row is not None
            if row[0] >= count:
                return
            assert time.monotonic() < deadline, f"{row[0]} of {count} snapshots are stored"
            time.sleep(0.05)


@pytest.fixture
def world(served: Served, tmp_path: Path) -> World:
    log = PostgresLog.create(served.plane.pool, "decisions", 1, "event_id")
    return World(served, served.plane.objects, log)


async def test_each_event_is_decided_on_once_and_told_and_made_again(world: World) -> None:
    events = {event.event_id for event in world.served.events()}
    async with world.decider(Held(world.in_force())) as decider:
        tally = await decider.decide_available(records=64)
        assert decider.place() == world.served.plane.log.ends()
        again = await decider.decide_available()
    assert (again.outcomes.total(), again.known_events) == (0, 0)
    records = world.records()
    assert {record.event_id for record in records} == events
    assert len(records) == len(events) == tally.outcomes.total()
    assert tally.known_events == len(world.served.events()) - len(events) > 0
    assert len(tally.outcomes) == 3, tally.outcomes
    # one payment has a text for an amount: only a mode that reads nothing of it decides
    assert tally.lowering == {"INPUT_UNFIT": 1}
    lowered = [(record.posture.applied_mode, record.outcome) for record in records if record.posture and record.posture.lowering]
    assert lowered == [(Mode.HOLD, Outcome.REVIEW)]
    assert sorted(told["decision_id"] for told in world.told()) == [record.decision_id for record in records]
    by_id = {record.decision_id: record for record in records}
    for told in world.told():
        assert DecisionRecord.model_validate(told) == by_id[told["decision_id"]]
    world.wait_stored(len({record.feature_snapshot_hash for record in records} - {None}))
    replay = ReplayTally()
    past = world.past()
    redecide(past, ReadyBundles(world.objects).load, replay)
    assert (replay.decisions, replay.equal, replay.differences) == (len(records), len(records), [])

    # a record that somebody changed is found, and so is a bundle that is gone
    forged = next(one for one in past if one.content["outcome"] == "decline")
    text = forged.stored_text.replace('"outcome":"decline"', '"outcome":"approve"')
    replay = ReplayTally()
    redecide([replace(forged, stored_text=text, content=orjson.loads(text))], ReadyBundles(world.objects).load, replay)
    assert [one.words for one in replay.differences] == ["outcome: recorded approve, made again decline"]
    (world.objects.folder / bundle_path(world.bundle()[0].ref)).unlink()  # type: ignore[operator]
    replay = ReplayTally()
    redecide([forged], ReadyBundles(world.objects).load, replay)
    assert "the bundle bundles/velocity/" in replay.differences[0].words


async def test_a_change_that_is_committed_before_a_step_makes_it_decide_again(world: World) -> None:
    normal, hold = world.in_force(), InForce(posture(Mode.HOLD, 1), world.in_force().bundles)
    async with world.decider(Held(normal, [normal, hold])) as decider:
        await decider.decide_available(records=100)
    modes = [record.posture.in_force.sequence for record in world.records() if record.posture is not None]
    assert 0 < modes.count(0) < len(modes)  # the first step was under NORMAL, all others under HOLD
    assert {record.outcome for record in world.records() if record.posture and record.posture.in_force.sequence} == {
        Outcome.REVIEW
    }


async def test_a_posture_that_never_rests_ends_in_words(world: World) -> None:
    bundles = world.in_force().bundles
    changes = [InForce(posture(Mode.HOLD, sequence), bundles) for sequence in range(1, 500)]
    async with world.decider(Held(world.in_force(), changes)) as decider:
        with pytest.raises(PostureUnsteady, match="changed 100 times"):
            await decider.decide_available()
    assert world.records() == []
    assert world.told() == []


async def test_without_a_bundle_or_a_posture_everything_fails_closed(world: World) -> None:
    async with world.decider(Held(InForce(posture(Mode.NORMAL), ()))) as decider:
        tally = await decider.decide_available()
    assert set(tally.outcomes) == {Outcome.DECLINE}
    assert set(tally.lowering) == {"NO_BUNDLE"}
    assert {record.bundle for record in world.records()} == {None}


async def test_a_posture_that_nobody_ever_said_is_the_lowest(world: World) -> None:
    async with world.decider(Held(InForce(NOTHING_SAID, world.in_force().bundles))) as decider:
        tally = await decider.decide_available()
    assert set(tally.outcomes) == {Outcome.DECLINE}
    assert tally.lowering == {}
    replay = ReplayTally()
    redecide(world.past(), ReadyBundles(world.objects).load, replay)
    assert replay.equal == replay.decisions > 0


async def test_features_that_are_late_lower_the_mode_and_the_event_is_still_decided_on(world: World) -> None:
    async with world.decider(Held(world.in_force())) as decider:
        await decider.decide_available()
        before = len(world.records())
        part = deliveries().part(0, 5)
        append(world.served.plane.log, replace(part, event_ids=[f"new-{number}" for number in range(5)]))
        tally = await decider.decide_available()
    late = [record for record in world.records() if record.event_id.startswith("new-")]
    assert len(world.records()) == before + len(late)
    assert tally.lowering == {"FEATURES_LATE": len(late)}
    for record in late:
        assert record.posture is not None
        assert (record.posture.applied_mode, record.outcome, record.vector) == (Mode.HOLD, Outcome.REVIEW, None)
    project_available(world.served.plane.projector(world.served.plane.ensure_live()), 1_000, lambda records: None)


async def test_an_answer_whose_hash_does_not_fit_decides_nothing(world: World) -> None:
    async with world.decider(Held(world.in_force())) as real:

        async def forged(request: Any) -> Any:
            answer = await real.ask(request)
            value = answer.snapshot.by_key[0].by_group[0].model_copy(update={"features": {"count_24h": 10**6}})
            key = answer.snapshot.by_key[0].model_copy(update={"by_group": (value,)})
            by_key = (key, *answer.snapshot.by_key[1:])
            return answer.model_copy(update={"snapshot": answer.snapshot.model_copy(update={"by_key": by_key})})

        async with world.decider(Held(world.in_force()), forged) as decider:
            tally = await decider.decide_available()
    assert set(tally.outcomes) == {Outcome.REVIEW}
    assert set(tally.lowering) == {"VECTOR_CORRUPT"}
    assert {record.feature_snapshot_hash for record in world.records()} == {None}


async def test_a_shadow_that_is_damaged_stops_nobody_who_decides(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bundle, shadow = world.bundle(bundle_name="challenger", guardrails=(BIG_AMOUNT,), model=None)
    assert world.objects.folder is not None
    (Path(world.objects.folder) / bundle_path(bundle.ref)).unlink()
    async with world.decider(Held(world.in_force(shadow=shadow))) as decider:
        tally = await decider.decide_available()
    assert tally.outcomes.total() > tally.shadow == 0
    assert "the shadow does not decide" in caplog.text


@pytest.mark.parametrize("with_shadow", [False, True])
async def test_a_step_that_is_too_long_is_made_again_with_what_it_began_and_asks_for_nothing_twice(
    world: World, with_shadow: bool
) -> None:
    at, asked, sizes = [0.0], Counter[str](), list[int]()
    policy = replace(POLICY, connections=4)
    shadow = world.bundle(bundle_name="challenger", guardrails=(BIG_AMOUNT,), model=None)[1] if with_shadow else None
    async with world.decider(Held(world.in_force(shadow=shadow)), policy=policy) as real:

        async def slow(request: GetFeaturesRequest) -> Any:
            asked[request.model_dump_json()] += 1
            at[0] += 1.0 if sum(asked.values()) <= 20 else 0.0
            return await real.ask(request)

        def note(connection: object, records: Sequence[DecisionRecord]) -> None:
            sizes.append(sum(record.slot is Slot.ACTIVE for record in records))

        decider = replace(real, ask=slow, monotonic=lambda: at[0], record_more=note)
        tally = await decider.decide_available()
        assert decider.place() == world.served.plane.log.ends()
    assert max(asked.values()) == 1 + with_shadow
    assert tally.outcomes.total() == len(world.records()) - tally.shadow == sum(sizes) > 100
    assert tally.shadow == with_shadow * sum(sizes)
    # the first step was cut behind those that were begun with; then each may be twice as long as the one before
    assert 0 < sizes[0] <= 12
    assert all(size <= 12 * 2 ** (number + 1) for number, size in enumerate(sizes[1:]))
    assert max(sizes) > 50


async def test_a_shadow_decides_beside_and_counts_for_nothing(world: World) -> None:
    _, shadow = world.bundle(bundle_name="challenger", guardrails=(BIG_AMOUNT,), model=None)
    async with world.decider(Held(world.in_force(shadow=shadow))) as decider:
        tally = await decider.decide_available()
    slots = [record.slot for record in world.records()]
    assert slots.count(Slot.ACTIVE) == slots.count(Slot.SHADOW) == tally.shadow == tally.outcomes.total() > 0


async def test_it_ends_between_two_steps_when_it_is_enough(world: World) -> None:
    ends = world.served.plane.log.ends()
    async with world.decider(Held(world.in_force(Mode.HOLD))) as decider:
        first = await decider.decide_available(records=20, enough=lambda: True)
        assert 0 < first.outcomes.total() <= 20
        assert decider.place() not in (None, ends)
        rest = await decider.decide_available()
        assert (decider.place(), rest.known_events + rest.outcomes.total() > 0) == (ends, True)
    assert len(world.records()) == (first.outcomes + rest.outcomes).total()


async def test_two_deciders_of_a_run_do_not_both_win(world: World) -> None:
    held = Held(world.in_force())
    async with world.decider(held) as one, world.decider(held) as other:
        pages = list(one.reader.pages(None, 50))
        await one._step(pages[:1], {}, {})
        with pytest.raises(PlaceMoved, match="is decided on by somebody else"):
            await other._step(pages[:1], {}, {})
        elsewhere = pages[0].next.model_copy(update={"offset": 7})
        with pytest.raises(PlaceMoved):
            await other._step([replace(pages[0], events=[])], {elsewhere.partition_id: elsewhere}, {})
    assert len(world.told()) == len(world.records())


async def test_a_decision_whose_event_is_not_in_the_log_is_told(world: World) -> None:
    async with world.decider(Held(world.in_force(Mode.HOLD))) as decider:
        await decider.decide_available()
    run = replace(world.run(), clock_skew_us=-(10**15))
    with pytest.raises(DecisionsUnread, match="which is no card_payment of the run"):
        list(run.pages(run.parts()))


async def test_several_processes_tell_what_one_tells(world: World) -> None:
    async with world.decider(Held(world.in_force())) as decider:
        await decider.decide_available()
    records = world.records()
    world.wait_stored(len({record.feature_snapshot_hash for record in records} - {None}))
    plane = world.served.plane
    approved = [record.decision_id for record in records if record.outcome is Outcome.APPROVE]
    with plane.pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute(
            'UPDATE ofp.decision_record SET content = replace(content, \'"outcome":"approve"\', \'"outcome":"decline"\')'
            " WHERE decision_id = ANY(%s)",
            (approved[::3],),
        )
        # what a reader of JSON takes for the same is another record
        connection.execute(
            "UPDATE ofp.decision_record SET content = replace(content, '\"contract_version\":', '\"contract_version\": ')"
            " WHERE decision_id = %s",
            (approved[1],),
        )
        parts = decided_parts(connection, plane.profile.context_pins, 40)
    assert sum(part.decisions for part in parts) == len(records)
    assert max(part.decisions for part in parts) <= 40 < len(records) // 4
    alone, together = ReplayTally(), ReplayTally()
    counts = list(replay_run(plane, parts, alone, workers=1))
    assert list(replay_run(plane, parts, together, workers=2, worth_a_process=1)) == counts == [part.decisions for part in parts]
    assert alone == together
    assert (alone.decisions, len(alone.differences)) == (len(records), len(approved[::3]) + 1)
    assert alone.equal == alone.decisions - len(alone.differences)
    assert {one.words for one in alone.differences} == {
        "outcome: recorded decline, made again approve",
        "its bytes are not canonical",
    }
    assert sum(count for recorded, count in alone.recorded.items() if recorded.outcome == "approve") == len(approved) - len(
        approved[::3]
    )

    # a limit takes the oldest, and no part beyond it
    limited = world.run().parts(7)
    assert [part.decisions for part in limited] == [7]
    few = ReplayTally()
    list(replay_run(plane, limited, few))
    assert few.decisions == 7


async def test_decisions_that_stand_on_nothing_are_missed_by_each_number_of_processes(world: World) -> None:
    async with world.decider(Held(world.in_force(Mode.HOLD))) as decider:
        await decider.decide_available()
    plane, record = world.served.plane, world.records()[0]
    beyond = record.event_position.model_copy(update={"offset": 10**6})
    elsewhere = record.event_position.model_copy(update={"stream_name": "another"})
    bundle = None if record.bundle is None else record.bundle.bundle
    with plane.pool.connection() as connection:
        count = len(world.records())
        append_decisions(
            connection,
            [
                record.model_copy(update={"event_position": at, "decision_id": loop_decision_id(record.event_id, bundle, at)})
                for at in (beyond, elsewhere)
            ],
        )
        parts = decided_parts(connection, plane.profile.context_pins, 100)
    words = f"{count + 2} decisions are recorded, and 2 of them stand on nothing that {plane.log.stream_name}"
    for workers in (1, 2):
        tally = ReplayTally()
        with pytest.raises(DecisionsUnread, match=words):
            list(replay_run(plane, parts, tally, workers, worth_a_process=1))
        assert tally.equal == tally.decisions == count
    with pytest.raises(DecisionsUnread, match=words):
        list(world.run().pages(parts))


async def test_a_process_that_ends_in_the_middle_is_an_error(world: World) -> None:
    async with world.decider(Held(world.in_force(Mode.HOLD))) as decider:
        await decider.decide_available()
    with world.served.plane.pool.connection() as connection:
        parts = decided_parts(connection, world.served.profile.context_pins, 5)
    before = {child.pid for child in multiprocessing.active_children()}
    tally = ReplayTally()
    counts = replay_run(world.served.plane, parts, tally, 2, worth_a_process=1)
    next(counts)
    for child in multiprocessing.active_children():
        if child.pid not in before:
            child.kill()
    with pytest.raises(ReplayBroken, match="ended in the middle"):
        list(counts)
    assert tally.decisions < sum(part.decisions for part in parts)


async def test_what_another_bundle_would_have_decided_and_why(world: World) -> None:
    async with world.decider(Held(world.in_force())) as decider:
        await decider.decide_available()
    world.wait_stored(len({record.feature_snapshot_hash for record in world.records()} - {None}))
    past, load = world.past(), ReadyBundles(world.objects).load
    recorded = {one.decision_id: one.content for one in past}

    def tried(alternative: Alternative) -> WhatIf:
        trial = WhatIf(alternative, load)
        trial.look_at(past)
        assert trial.tally.same + len(trial.tally.flips) + trial.tally.untold.total() == len(past)
        return trial

    same = tried(Alternative(bundle=load(world.bundle()[0].ref)))
    assert (same.tally.same, same.tally.flips) == (len(past), [])

    lower = BIG_AMOUNT.model_copy(update={"all_of": (BIG_AMOUNT.all_of[0].model_copy(update={"value": 5_000}),)})
    stricter, _ = world.bundle(guardrails=(lower,))
    by_rule = tried(Alternative(bundle=load(stricter.ref))).tally
    assert {flip.causes for flip in by_rule.flips} == {(Cause.RULE,)}
    expected = {
        name
        for name, content in recorded.items()
        if content["outcome"] != "decline"
        and content["posture"]["applied_mode"] == "NORMAL"
        and int(next(one for one in past if one.decision_id == name).event.payload.get("amount_minor", 0)) >= 5_000
    }
    assert {flip.decision_id for flip in by_rule.flips if flip.after is Outcome.DECLINE} == expected != set()

    ruled, _ = world.bundle(model=None)
    by_model = tried(Alternative(bundle=load(ruled.ref))).tally
    assert {flip.causes for flip in by_model.flips} == {(Cause.MODEL,)}
    assert len(by_model.flips) > 0

    held = tried(Alternative(mode=Mode.HOLD)).tally
    assert {flip.causes for flip in held.flips} == {(Cause.POSTURE,)}
    assert {flip.after for flip in held.flips} == {Outcome.REVIEW}
    both = tried(Alternative(bundle=load(stricter.ref), mode=Mode.RULES_ONLY)).tally
    assert {cause for flip in both.flips for cause in flip.causes} >= {Cause.RULE}

    more = world.bundle(groups=(*world.bundle()[0].groups, merchant()), bundle_name="wider")[0]
    assert tried(Alternative(bundle=load(more.ref))).tally.untold == {"OTHER_GROUPS": len(past) - 1}


def merchant() -> Any:
    from ofp_platform_tests.decisions.conftest import group

    return group("merchant_risk")


async def test_a_bundle_or_model_that_is_not_what_its_digest_says_is_refused(world: World) -> None:
    bundle, in_force = world.bundle()
    assert bundle.model is not None
    path = world.objects.folder / bundle.model.path  # type: ignore[operator]
    good = path.read_bytes()
    path.write_bytes(good.replace(b"velocity", b"velocitx"))
    with pytest.raises(BundleDamaged, match=r"the model learning/.*was changed"):
        ReadyBundles(world.objects).load(in_force.bundle)
    path.write_bytes(good)
    assert ReadyBundles(world.objects).load(in_force.bundle).bundle == bundle
