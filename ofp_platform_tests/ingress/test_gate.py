"""The gate: what it says of records in columns is what it says of them one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.ingress.class_map import ClassMap, class_map_of
from ofp_platform.ingress.gate import Gate, Passed, Sent, SetAside
from ofp_platform.log import column_admission
from ofp_platform.log.admission import Admission
from ofp_platform.log.port import RecordRefusal, RefusalReason
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64, seed=7)
CLASSES = class_map_of(shipped_pack("mule_rings"), has_context=True)
GATE = Gate(PINS, CLASSES, Admission("payload.account_id"), Admission("payload.member"))
Change = Callable[[dict[str, Any]], object]


def event(number: int) -> dict[str, Any]:
    payload = {"account_id": f"a-{number % 3}", "amount_minor": number, "counterparty_id": "p"}
    head = {"event_id": f"e-{number}", "event_type": "transfer", "schema_version": "v1", "ts_utc": "2026-01-01T00:00:00Z"}
    return {**head, **PINS.wire(), "payload": payload}


def described(verdict: Passed | SetAside) -> Any:
    """Everything that a verdict says, and the record that would be appended."""
    if isinstance(verdict, SetAside):
        return verdict
    columns, row = verdict.columns, verdict.row
    record = [
        getattr(columns, name)[row]
        for name in ("event_ids", "kinds", "ts", "emitted_at", "payloads", "amends", "payload_hashes", "keys")
    ]
    return verdict[:4], verdict.event_id, verdict.event_type, record


CHANGES: list[Change] = [
    lambda one: one.update(ts_utc="2026-01-01T00:00:00.000000Z"),
    lambda one: one.update(ts_utc="2026-01-01T00:00:00.5Z"),
    lambda one: one.update(ts_utc="2026-13-01T00:00:00Z"),
    lambda one: one.update(ts_utc="2026-12-31T23:59:60Z"),
    lambda one: one.update(ts_utc=7),
    lambda one: one.update(emitted_at_utc="2026-01-01T00:00:01.000001Z"),
    lambda one: one.update(emitted_at_utc=None),
    lambda one: one.update(seed=True),
    lambda one: one.update(seed=7.0),
    lambda one: one.update(seed=None),
    lambda one: one.update(seed=[7]),
    lambda one: one.pop("seed"),
    lambda one: one.pop("payload"),
    lambda one: one.update(run_id="another"),
    lambda one: one.update(run_id=["r"]),
    lambda one: one.update(run_id="4111111111111111"),
    lambda one: one.update(platform_run_id="p"),
    lambda one: one.update(surplus=1),
    lambda one: one.update(event_id=""),
    lambda one: one.update(event_id="4111111111111111"),
    lambda one: one.update(event_id=7),
    lambda one: one.update(event_type="chargeback"),
    lambda one: one.update(event_type="Upper"),
    lambda one: one.update(event_type=["transfer"]),
    lambda one: one.update(event_type="identity_link"),
    lambda one: one.update(schema_version="v9"),
    lambda one: one["payload"].update(account_id="4111111111111111"),
    lambda one: one["payload"].update(account_id=None),
    lambda one: one["payload"].update(nested={"é": [1.5, None, True]}),
    lambda one: one["payload"].update(huge=2**60),
    lambda one: one["payload"].update(bad=float("nan")),
    lambda one: one.update(payload=[1]),
    lambda one: one.update(amends={"event_class": "transfer", "event_id": "x", "ts_utc": "2026-01-01T00:00:00Z", "kind": "void"}),
]


@st.composite
def batches(draw: st.DrawFn) -> list[Sent]:
    records: list[Sent] = [event(number) for number in range(draw(st.integers(1, 14)))]
    for place in draw(st.lists(st.integers(0, len(records) - 1), max_size=3)):
        record = records[place]
        if not isinstance(record, dict) or not draw(st.integers(0, 9)):
            records[place] = RecordRefusal(0, RefusalReason.NOT_I_JSON, "doubled")
            continue
        change = draw(st.sampled_from(CHANGES))
        everywhere = draw(st.booleans())
        for index, other in enumerate(records):
            if (everywhere or index == place) and isinstance(other, dict):
                try:
                    change(other)
                except (KeyError, AttributeError, TypeError):  # another change took what this one changes
                    continue
    return records


@given(batches())
def test_columns_say_what_is_said_one_by_one(records: list[Sent]) -> None:
    together = GATE.examine(records)
    alone = [verdict for record in records for verdict in GATE.examine([record])]
    assert list(map(described, together)) == list(map(described, alone))


def test_plain_batches_are_looked_at_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("looked at one by one")

    monkeypatch.setattr(Admission, "admit", never)
    plain = [event(number) for number in range(2_500)]
    assert all(isinstance(verdict, Passed) for verdict in GATE.examine(plain))
    times = [{**one, "emitted_at_utc": "2026-01-01T00:00:01Z"} for one in plain]
    assert all(isinstance(verdict, Passed) for verdict in GATE.examine(times))
    foreign = [{**one, "run_id": "other"} for one in plain[:20]]
    assert [one.reason for one in GATE.examine(foreign) if isinstance(one, SetAside)] == ["RUN_NOT_ACTIVE"] * 20


def test_a_payload_schema_is_asked_of_each_record_of_a_plain_batch() -> None:
    content = CLASSES.wire()
    content["events"]["transfer"]["payload_schemas"] = {"v1": {"properties": {"amount_minor": {"maximum": 10}}}}
    gate = Gate(PINS, ClassMap.model_validate(content), Admission("payload.account_id"), None)
    verdicts = gate.examine([event(number) for number in range(20)])
    assert [isinstance(verdict, Passed) for verdict in verdicts] == [number <= 10 for number in range(20)]


@pytest.mark.parametrize("records", [[], [None], [7, 8], [{}]])
def test_what_is_no_envelope_is_not_plain(records: list[Any]) -> None:
    if records:
        assert column_admission.plain_columns(records) is None
    assert len(GATE.examine([one for one in records if isinstance(one, dict)])) == len(
        [r for r in records if isinstance(r, dict)]
    )
