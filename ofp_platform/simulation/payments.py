"""Card payments of a simulated town with fraud, as a stream of events in delivery order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.simulation.delays import DelayModel, DelaySampler
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.fraud import CHANNELS, DAY, Payments, Scenario, make_payments
from ofp_platform.simulation.population import CURRENCIES, Population, PopulationSize, make_population
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_duration, parse_time

Int64 = npt.NDArray[np.int64]
SCHEMA_VERSION = "v1"
REPORT_DELAY = parse_duration("7d")
FAR_FUTURE = parse_time("2099-01-01T00:00:00Z")


@dataclass(frozen=True)
class PaymentSimulation:
    """The settings of a simulation. The same fields give the same records, to the byte.

    `start` is in microseconds; payments lie in [start, start + days). Fraud reports come seven days after their
    payment; those due after the end of the period do not exist yet, and are not made.
    """

    pins: ContextPins
    seed: int = 0
    payments: int = 200_000
    start: int = parse_time("2026-01-01T00:00:00Z")
    days: int = 35
    size: PopulationSize = field(default_factory=PopulationSize)
    delays: DelayModel = field(default_factory=DelayModel)
    disturbances: Disturbances = field(default_factory=Disturbances)

    def __post_init__(self) -> None:
        if self.payments < 1 or self.days < 1:
            raise ValueError("a simulation has at least one payment and one day")
        if self.disturbances.total > self.payments:
            raise ValueError(
                f"{self.payments:,} payments are fewer than the {self.disturbances.total:,} disturbances among them: too many"
            )


@dataclass(frozen=True)
class SimulationSummary:
    """The contents of a simulation, so that whoever runs it can say what the log must show.

    `out_of_order`: records with an event time before that of a record delivered earlier (events in 2099 do not count).
    `late`: true events with a delay from the late tail. `reports_pending`: frauds whose report is due after the period.
    """

    records: int
    payments: int
    declined: int
    frauds: dict[str, int]
    fraud_reports: int
    reports_pending: int
    accounts: int
    cards: int
    customers: int
    devices: int
    merchants: int
    late: int
    out_of_order: int
    disturbances: Disturbances


@dataclass(frozen=True)
class PaymentStream:
    """Everything that one simulation delivers, in the order of admission, and what is in it."""

    deliveries: Deliveries
    summary: SimulationSummary

    def batches(self, batch_records: int = 10_000) -> Iterator[Deliveries]:
        """The deliveries cut into batches of at most `batch_records`."""
        for start in range(0, len(self.deliveries), batch_records):
            yield self.deliveries.part(start, start + batch_records)


@dataclass
class _Draft:
    """Records before they are put into delivery order; lists and arrays of one length."""

    event_ids: list[str]
    event_types: list[str]
    payloads: list[bytes]
    ts: Int64
    emitted_at: Int64
    admitted_at: Int64
    foreign: npt.NDArray[np.int32]


def simulate_payments(simulation: PaymentSimulation) -> PaymentStream:
    """Run a simulation. About 300 bytes of memory a record; 200,000 payments take a second or two."""
    of_people, of_payments, of_emission, of_delays, of_disturbances = np.random.SeedSequence(simulation.seed).spawn(5)
    population = make_population(simulation.size, np.random.default_rng(of_people))
    payments = make_payments(
        population, simulation.payments, simulation.start, simulation.days, np.random.default_rng(of_payments)
    )
    frauds = np.flatnonzero(payments.scenario != Scenario.GENUINE)
    reported_frauds = frauds[payments.ts[frauds] + REPORT_DELAY < simulation.start + simulation.days * DAY]

    entities = _entity_texts(population, payments)
    draft = _true_events(population, payments, reported_frauds, entities)
    delays, late = DelaySampler(simulation.delays, of_delays).draw(len(draft.ts))
    draft.admitted_at = draft.ts + delays
    # a producer stamps an event somewhere on its way to the log
    draft.emitted_at = draft.ts + (delays * np.random.default_rng(of_emission).random(len(delays))).astype(np.int64)
    rng = np.random.default_rng(of_disturbances)
    records = _with_disturbances(draft, len(payments.ts), simulation.disturbances, rng)

    order = np.lexsort((np.arange(len(records.ts)), records.admitted_at))
    deliveries = Deliveries(
        schema_version=SCHEMA_VERSION,
        pins=(simulation.pins, foreign_run(simulation.pins)),
        pins_index=records.foreign[order],
        event_ids=[records.event_ids[i] for i in order],
        event_types=[records.event_types[i] for i in order],
        ts=records.ts[order],
        emitted_at=records.emitted_at[order],
        admitted_at=records.admitted_at[order],
        payloads=[records.payloads[i] for i in order],
    )
    present = deliveries.ts[deliveries.ts < FAR_FUTURE]
    summary = SimulationSummary(
        records=len(deliveries),
        payments=len(payments.ts),
        declined=int(payments.declined.sum()),
        frauds={s.name.lower(): int((payments.scenario == s).sum()) for s in Scenario if s is not Scenario.GENUINE},
        fraud_reports=len(reported_frauds),
        reports_pending=len(frauds) - len(reported_frauds),
        accounts=simulation.size.accounts,
        cards=population.cards,
        customers=simulation.size.customers,
        devices=population.devices,
        merchants=simulation.size.merchants,
        late=int(late.sum()),
        out_of_order=int((present < np.maximum.accumulate(present)).sum()),
        disturbances=simulation.disturbances,
    )
    return PaymentStream(deliveries, summary)


def foreign_run(pins: ContextPins) -> ContextPins:
    """A run that is not `pins`: the one that the foreign events of a simulation belong to."""
    return pins.model_copy(update={"run_id": "foreign-run", "parameter_hash": digest_of({"foreign_to": pins.wire()})})


def _entity_texts(population: Population, payments: Payments) -> list[tuple[str, ...]]:
    """(account, card, customer, device, merchant) ids of every payment."""
    account = population.account_of_card[payments.card]
    customer = population.customer_of_account[account]
    columns = (account, payments.card, customer, payments.device, payments.merchant)
    names = ("account", "card", "customer", "device", "merchant")
    texts = [[f"{name}-{number:07d}" for number in column.tolist()] for name, column in zip(names, columns, strict=True)]
    return list(zip(*texts, strict=True))


def _true_events(population: Population, payments: Payments, reported_frauds: Int64, entities: list[tuple[str, ...]]) -> _Draft:
    """Each payment, then each fraud report. Payload keys stand in the order of RFC 8785: the bytes are canonical."""
    currency = population.customer_currency[population.customer_of_account[population.account_of_card[payments.card]]]
    columns = (payments.amount.tolist(), payments.channel.tolist(), currency.tolist(), payments.declined.tolist())
    payloads = [
        (
            f'{{"account_id":"{account}","amount_minor":{amount},"card_id":"{card}","channel":"{CHANNELS[channel]}",'
            f'"currency":"{CURRENCIES[money]}","customer_id":"{customer}","device_id":"{device}",'
            f'"merchant_id":"{merchant}","status":"{"declined" if is_declined else "approved"}"}}'
        ).encode()
        for (account, card, customer, device, merchant), amount, channel, money, is_declined in zip(
            entities, *columns, strict=True
        )
    ]
    for index in reported_frauds.tolist():
        account, card, customer, device, merchant = entities[index]
        payloads.append(
            (
                f'{{"account_id":"{account}","card_id":"{card}","customer_id":"{customer}","device_id":"{device}",'
                f'"merchant_id":"{merchant}","payment_event_id":"payment-{index:07d}"}}'
            ).encode()
        )
    count, reports = len(payments.ts), len(reported_frauds)
    ts = np.concatenate([payments.ts, payments.ts[reported_frauds] + REPORT_DELAY])
    return _Draft(
        event_ids=[f"payment-{i:07d}" for i in range(count)] + [f"report-{i:07d}" for i in reported_frauds.tolist()],
        event_types=["card_payment"] * count + ["fraud_report"] * reports,
        payloads=payloads,
        ts=ts,
        emitted_at=ts,
        admitted_at=ts,
        foreign=np.zeros(len(ts), dtype=np.int32),
    )


def _with_disturbances(draft: _Draft, payments: int, disturbances: Disturbances, rng: np.random.Generator) -> _Draft:
    """The draft with the disturbances behind it. No payment is disturbed twice."""
    count = disturbances.total
    victims = rng.choice(payments, size=count, replace=False)
    again = rng.integers(MICROS_PER_SECOND // 2, 30 * MICROS_PER_SECOND, count)
    kinds = [kind for kind, number in vars(disturbances).items() for _ in range(number)]
    extra = _Draft(
        event_ids=[draft.event_ids[i] for i in victims],
        event_types=[draft.event_types[i] for i in victims],
        payloads=[draft.payloads[i] for i in victims],
        ts=draft.ts[victims],
        emitted_at=draft.emitted_at[victims],
        admitted_at=draft.admitted_at[victims] + again,
        foreign=np.zeros(count, dtype=np.int32),
    )
    for index, kind in enumerate(kinds):
        payload: dict[str, Any] = orjson.loads(extra.payloads[index])
        if kind == "duplicates":
            continue
        if kind == "retries":
            extra.emitted_at[index] += again[index] // 2
            continue
        if kind == "conflicts":
            payload["amount_minor"] += 1
        else:
            extra.event_ids[index] = f"payment-{kind.replace('_', '-')}-{index}"
        if kind == "future":
            extra.ts[index] = FAR_FUTURE + index
            extra.emitted_at[index] = FAR_FUTURE + index
        elif kind == "wrong_type":
            amount = payload["amount_minor"]
            payload["amount_minor"] = str(amount) if index % 2 else amount + 0.5
        elif kind == "missing_field":
            del payload["amount_minor" if index % 2 else "merchant_id"]
        elif kind == "foreign_pins":
            extra.foreign[index] = 1
        extra.payloads[index] = ijson_bytes(payload)
    return replace(
        draft,
        event_ids=draft.event_ids + extra.event_ids,
        event_types=draft.event_types + extra.event_types,
        payloads=draft.payloads + extra.payloads,
        ts=np.concatenate([draft.ts, extra.ts]),
        emitted_at=np.concatenate([draft.emitted_at, extra.emitted_at]),
        admitted_at=np.concatenate([draft.admitted_at, extra.admitted_at]),
        foreign=np.concatenate([draft.foreign, extra.foreign]),
    )
