"""Datasets of small worlds against the oracle: what a row may know, and what follows from it, value by value."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.offline.replay.decision_basis import RecordedDecision
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, EntityTime, PerEntity, PerEvent, PerGrid
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.replayed import GROUPS, Built, basis_of, build, group_refs, record_batches, world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START, times, worlds

CONTENT = pack_content(world_registry().pack)
TYPES = ("payment", "refund", "report")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@st.composite
def replays(draw: st.DrawFn) -> list[Record]:
    """A world whose records were admitted near each other, some early, some late, with copies at other moments."""
    world = draw(worlds(max_events=30))
    moments = st.builds(lambda second, side: START + second * SECOND + side, st.integers(0, 40), st.sampled_from((-1, 0, 0, 1)))
    size = draw(st.sampled_from((1_000, 10**6, None)))  # sums of extreme amounts only end a build
    return [_moved(record, draw(moments), size) for record in world.records]


def _moved(record: Record, moment: int, size: int | None) -> Record:
    payload = dict(record.envelope["payload"])
    if size is not None and type(payload.get("amount")) is int:
        payload["amount"] %= size
    admitted_at = record.admitted_at if record.admitted_at < START else moment
    return replace(record, admitted_at=admitted_at, envelope={**record.envelope, "payload": payload})


def everything(records: Sequence[Record]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for record in records:
        ends[record.partition_id] = max(ends.get(record.partition_id, 0), record.offset + 1)
    return ends


def known(records: Sequence[Record], ends: Mapping[str, int] | None = None) -> fold.Known:
    return fold.known_events(records, everything(records) if ends is None else ends, PINS, CONTENT, SKEW)


def admissions(records: Sequence[Record]) -> dict[tuple[str, str, bytes], int]:
    """The earliest admission of each event and amendment among the records that apply, one record folded at a time."""
    found: dict[tuple[str, str, bytes], int] = {}
    for record in records:
        one = known([record])
        for identity in (*one.events, *one.amendments):
            found[identity] = min(found.get(identity, record.admitted_at), record.admitted_at)
    return found


def values(events: Sequence[fold.Event], keys: Mapping[str, str | None], as_of: int) -> dict[str, int | str | None]:
    made: dict[str, int | str | None] = {}
    for group in CONTENT["groups"]:
        if (group["name"], group["version"]) not in GROUPS or group["key_type"] not in keys:
            continue
        key_type, key_id = group["key_type"], keys[group["key_type"]]
        own = [event for event in events if key_id is not None and fold._touches(event, CONTENT, key_type, key_id)]
        for name, value in fold.group_features({**group, "on_demand": []}, own, as_of, {}).items():
            made[f"{group['name']}_{group['version']}__{name}"] = value if key_id is not None else None
    return made


def features(row: Mapping[str, Any]) -> dict[str, int | str | None]:
    return {
        name: format(value, "f") if isinstance(value, Decimal) else value
        for name, value in row.items()
        if name.startswith(tuple(f"{group}_{version}__" for group, version in GROUPS))
    }


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def feeds_all(event: fold.Event) -> bool:
    """Whether an event feeds each of the requested groups that use its type: else it makes no row."""
    groups = [group for group in CONTENT["groups"] if fold._uses(group, event.event_type)]
    users = {(group["name"], group["version"]) for group in groups}
    return users & set(GROUPS) <= event.groups


def hold_events(
    records: list[Record], basis: AsOfBasis, folder: Path, decisions: Sequence[RecordedDecision] = ()
) -> Built | None:
    """Build, and hold order, knowledge and values against the oracle. None: refused as the oracle has it."""
    scope = PerEvent(event_types=TYPES, payload_fields=("amount", "unread"))
    whole = known(records)
    admitted = admissions(records)
    expected: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for identity, event in whole.events.items():
        if event.event_type not in TYPES or not feeds_all(event):
            continue
        routing = CONTENT["events"][event.event_type]["keys"]
        keys = {
            key_type: event.payload.get(routing[key_type]) if key_type in routing else None
            for key_type in ("account", "merchant")
        }
        amount = event.payload.get("amount") if event.event_type != "report" else None
        base = {
            "event_id": identity[1],
            "event_type": event.event_type,
            "event_time_utc": event.ts,
            "account_id": keys["account"],
            "merchant_id": keys["merchant"],
            "payload__amount": amount,
            "payload__unread": None,
        }
        if basis is AsOfBasis.DECISION:
            asked = [
                (
                    one.as_of,
                    {part.partition_id: int(part.offset) for part in one.basis.partitions},
                    {"decision_id": one.decision_id},
                )
                for one in decisions
                if (one.event_type, one.event_id) == (event.event_type, identity[1])
            ]
        else:
            asked = [(event.ts, everything(records), {})]
        for as_of, ends, extra in asked:
            if basis is AsOfBasis.INGEST_TIME:
                until = admitted[identity]
                part = fold.part_of(whole, lambda name, until=until: admitted[name] <= until)  # type: ignore[misc]
                extra = {"known_until_utc": until}
            else:
                part = known(records, ends)
            events = list(fold.in_force(part, CONTENT, as_of).values())
            row = {**base, "as_of_time_utc": as_of, **extra}
            row |= values(events, keys, as_of)
            expected.append(((event.ts, event.tie, extra.get("decision_id", "")), row))
    try:
        built = build(record_batches(records), scope, basis, folder, decisions=decisions)
    except BuildRefused as refused:
        refusal = refused.reason
    else:
        refusal = None
    if not expected:
        assert refusal is BuildReason.NOTHING_TO_BUILD
        return None
    assert refusal is None
    rows = []
    for row in built.rows:
        plain = {name: micros(value) if isinstance(value, datetime) else value for name, value in row.items()}
        plain.pop("input_basis_digest", None)
        rows.append({**plain, **features(row)})
    assert rows == [row for _, row in sorted(expected, key=lambda one: one[0])]
    counted = built.folded
    assert (counted.applied, counted.duplicates, counted.ignored) == (whole.applied, whole.duplicates, whole.unknown)
    assert counted.records == counted.applied + counted.duplicates + counted.ignored + counted.other_run + counted.failed
    assert counted.watermark == whole.watermark
    return built


quiet = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)


@quiet
@given(replays(), st.sampled_from((AsOfBasis.EVENT_TIME, AsOfBasis.INGEST_TIME)))
def test_rows_of_events_are_the_oracle_s(records: list[Record], basis: AsOfBasis) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hold_events(records, basis, Path(folder))


@quiet
@given(replays(), st.data())
def test_rows_of_decisions_know_what_their_basis_holds(records: list[Record], data: st.DataObject) -> None:
    ends = everything(records)
    names = sorted({(one.envelope["event_type"], one.envelope["event_id"]) for one in records})
    decisions = []
    for number in range(data.draw(st.integers(0, 8)) if names else 0):
        event_type, event_id = data.draw(st.sampled_from(names))
        basis = {name: data.draw(st.integers(0, end)) for name, end in ends.items()}
        decisions.append(RecordedDecision(f"d-{number}", event_type, event_id, data.draw(times(40)), basis_of(basis)))
    with tempfile.TemporaryDirectory() as folder:
        hold_events(records, AsOfBasis.DECISION, Path(folder), decisions)


@quiet
@given(
    replays(), st.lists(st.tuples(st.sampled_from(("a-1", "a-2", "nobody")), times(45)), min_size=1, max_size=8), st.booleans()
)
def test_rows_of_entities_are_the_oracle_s(records: list[Record], asked: list[tuple[str, int]], ingest: bool) -> None:
    scope = PerEntity(
        key_type="account", rows=tuple(EntityTime(key_id=name, as_of_time_utc=time_text(time)) for name, time in asked)
    )
    whole, admitted = known(records), admissions(records)
    basis = AsOfBasis.INGEST_TIME if ingest else AsOfBasis.EVENT_TIME
    groups = tuple(ref for ref in group_refs() if ref.group_name != "shop")
    expected: list[dict[str, Any]] = []
    for time, name in sorted({(time, name) for name, time in asked}):
        part = fold.part_of(whole, lambda name, time=time: not ingest or admitted[name] <= time)  # type: ignore[misc]
        events = list(fold.in_force(part, CONTENT, time).values())
        expected.append({"account_id": name, "as_of_time_utc": time, **values(events, {"account": name}, time)})
    with tempfile.TemporaryDirectory() as folder:
        built = build(record_batches(records), scope, basis, Path(folder), groups=groups)
        rows = [{**row, "as_of_time_utc": micros(row["as_of_time_utc"]), **features(row)} for row in built.rows]
        for row in rows:
            assert (row.pop("known_until_utc", None) is not None) is ingest
        assert rows == expected


def test_a_grid_has_a_row_for_every_entity_and_point(tmp_path: Path) -> None:
    records = [payment(0, "a-2", 0), payment(1, "a-1", 1), payment(2, "a-2", 2)]
    scope = PerGrid(key_type="account", from_utc=time_text(START), to_utc=time_text(START + 3 * SECOND), step_seconds=2)
    groups = tuple(ref for ref in group_refs() if ref.group_name == "every")
    built = build(record_batches(records), scope, AsOfBasis.EVENT_TIME, tmp_path, groups=groups)
    got = [(row["account_id"], micros(row["as_of_time_utc"]) - START, row["every_v1__a_count"]) for row in built.rows]
    assert got == [("a-1", 0, 0), ("a-2", 0, 1), ("a-1", 2 * SECOND, 1), ("a-2", 2 * SECOND, 2)]
    listed = scope.model_copy(update={"key_ids": ("nobody",)})
    rows = build(record_batches(records), listed, AsOfBasis.EVENT_TIME, tmp_path / "listed", groups=groups).rows
    assert [row["every_v1__a_count"] for row in rows] == [0, 0]
    with pytest.raises(BuildRefused, match="only events have decisions"):
        build(record_batches(records), listed, AsOfBasis.DECISION, tmp_path / "decision", groups=groups)


def payment(
    offset: int, account: str, second: int, *, admitted: int | None = None, event_id: str | None = None, **more: Any
) -> Record:
    payload = {
        "account_id": account,
        "merchant_id": "m-1",
        "amount": 5,
        "status": "ok",
        "shop": "x",
        "online": True,
        **more,
    }
    envelope = {
        "event_id": event_id or f"e-{offset}",
        "event_type": "payment",
        "schema_version": "1",
        "ts_utc": time_text(START + second * SECOND),
        **PINS,
        "payload": payload,
    }
    return Record("p0", offset, START + (second if admitted is None else admitted) * SECOND, envelope)


def test_a_late_event_planted_in_an_ingest_time_build_is_known_from_its_admission_only(tmp_path: Path) -> None:
    records = [
        payment(0, "a-1", 1),
        payment(1, "a-1", 4),  # decided before the late one came
        payment(2, "a-1", 3, admitted=6),  # the planted one
        payment(3, "a-1", 6),  # admitted at the same moment: it knows it
        payment(4, "a-1", 3, admitted=9, event_id="e-2"),  # a copy: what is known stays known
    ]
    scope = PerEvent(event_types=("payment",))
    counts = {}
    for basis in (AsOfBasis.INGEST_TIME, AsOfBasis.EVENT_TIME):
        rows = build(record_batches(records), scope, basis, tmp_path / basis.value).rows
        counts[basis] = {row["event_id"]: row["every_v1__a_count"] for row in rows}
    assert counts[AsOfBasis.INGEST_TIME] == {"e-0": 1, "e-2": 2, "e-1": 2, "e-3": 4}
    assert counts[AsOfBasis.EVENT_TIME] == {"e-0": 1, "e-2": 2, "e-1": 3, "e-3": 4}


def test_bases_that_do_not_follow_each_other_are_kept_apart(tmp_path: Path) -> None:
    records = [payment(0, "a-1", 1), replace(payment(0, "a-1", 2, event_id="e-9"), partition_id="p1")]
    decisions = [
        RecordedDecision("left", "payment", "e-0", START + 5 * SECOND, basis_of({"p0": 1, "p1": 0})),
        RecordedDecision("right", "payment", "e-0", START + 5 * SECOND, basis_of({"p0": 0, "p1": 1})),
        RecordedDecision("both", "payment", "e-0", START + 5 * SECOND, basis_of({"p0": 1, "p1": 1})),
    ]
    built = hold_events(records, AsOfBasis.DECISION, tmp_path, decisions)
    assert built is not None
    assert len(built.job.rows.chains) == 2
    assert built.job.rows.undecided_events == 1
    assert {row["decision_id"]: row["every_v1__a_count"] for row in built.rows} == {"left": 1, "right": 1, "both": 2}


def test_a_decision_is_about_the_content_at_its_position(tmp_path: Path) -> None:
    records = [
        payment(0, "a-1", 1, event_id="twice"),
        payment(1, "a-2", 2, event_id="twice"),
        payment(2, "a-2", 2, event_id="twice"),
    ]
    decision = RecordedDecision("d", "payment", "twice", START + 5 * SECOND, basis_of({"p0": 3}), ("p0", 2))
    scope = PerEvent(event_types=("payment",))
    built = build(record_batches(records), scope, AsOfBasis.DECISION, tmp_path, decisions=[decision])
    assert [(row["decision_id"], row["account_id"]) for row in built.rows] == [("d", "a-2")]
    assert built.job.rows.undecided_events == 1


def test_a_decision_that_knew_more_than_the_replay_is_refused(tmp_path: Path) -> None:
    decision = RecordedDecision("d", "payment", "e-0", START, basis_of({"p0": 2}))
    with pytest.raises(BuildRefused, match="decision d knew partition p0 up to 2") as caught:
        build(
            record_batches([payment(0, "a-1", 1)]),
            PerEvent(event_types=("payment",)),
            AsOfBasis.DECISION,
            tmp_path,
            decisions=[decision],
        )
    assert caught.value.reason is BuildReason.REPLAY_INCOMPLETE
