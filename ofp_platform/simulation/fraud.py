"""Payments of a simulated town as columns: ordinary ones, and three ways of fraud among them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ofp_platform.simulation.population import Population
from ofp_platform.vocabulary.times import parse_duration

Int64 = npt.NDArray[np.int64]
DAY = parse_duration("1d")
MINUTE = parse_duration("1m")
CHANNELS = ("pos", "contactless", "ecommerce")
POS, CONTACTLESS, ECOMMERCE = range(3)
MAX_AMOUNT_MINOR = 2_000_000
BURST_PAYMENTS = 12


class Scenario(IntEnum):
    """The kinds of payments: genuine, and three of fraud."""

    GENUINE = 0
    LARGE_AMOUNTS = 1
    COMPROMISED_MERCHANT = 2
    STOLEN_CARD = 3


@dataclass(frozen=True)
class Payments:
    """n payments in time order, int64[n] each: ts in microseconds, entity numbers, amount in minor units.

    `channel` is an index into CHANNELS, `scenario` a Scenario; `declined` is bool[n].
    """

    ts: Int64
    card: Int64
    device: Int64
    merchant: Int64
    amount: Int64
    channel: Int64
    declined: npt.NDArray[np.bool_]
    scenario: Int64


def make_payments(population: Population, count: int, start: int, days: int, rng: np.random.Generator) -> Payments:
    """`count` payments in [start, start + days), of which about 1 in 150 is fraud. Times in microseconds."""
    bursts = count // 4_000
    stolen = _stolen_cards(population, bursts, start, days, rng)
    ordinary = _ordinary(population, count - len(stolen.ts), start, days, rng)
    payments = Payments(
        **{f.name: np.concatenate([getattr(ordinary, f.name), getattr(stolen, f.name)]) for f in fields(Payments)}
    )
    order = np.argsort(payments.ts, kind="stable")
    return Payments(**{f.name: getattr(payments, f.name)[order] for f in fields(Payments)})


def _ordinary(population: Population, count: int, start: int, days: int, rng: np.random.Generator) -> Payments:
    ts = _times_of_day(count, start, days, rng)
    card = rng.choice(population.cards, size=count, p=population.card_weight / population.card_weight.sum())
    customer = population.customer_of_account[population.account_of_card[card]]
    device = population.device_of_card[card]

    # the nearer the merchant, the likelier: rank 0 is the nearest; one purchase in five is at a distance
    rank = np.minimum(rng.geometric(0.3, count) - 1, population.near_merchants.shape[1] - 1)
    distant = rng.random(count) < 0.2
    anywhere = rng.choice(len(population.merchant_weight), size=count, p=population.merchant_weight)
    merchant = np.where(distant, anywhere, population.near_merchants[customer, rank])
    channel = np.where(distant, ECOMMERCE, np.where(rng.random(count) < 0.6, CONTACTLESS, POS))

    typical = population.customer_amount[customer] * population.merchant_factor[merchant]
    amount = typical * rng.lognormal(0.0, 0.45, count)
    scenario = np.full(count, int(Scenario.GENUINE))

    spenders = rng.choice(len(population.customer_amount), size=max(1, len(population.customer_amount) // 50), replace=False)
    begins = _windows(len(population.customer_amount), spenders, start, days, 14, rng)
    large = _inside(ts, begins[customer], 14) & (rng.random(count) < 0.25)
    amount = np.where(large, amount * 5, amount)
    scenario[large] = Scenario.LARGE_AMOUNTS

    leaks = rng.choice(len(population.merchant_factor), size=max(1, len(population.merchant_factor) // 150), replace=False)
    begins = _windows(len(population.merchant_factor), leaks, start, days, 10, rng)
    at_leaky_merchant = _inside(ts, begins[merchant], 10) & (rng.random(count) < 0.6) & ~large
    scenario[at_leaky_merchant] = Scenario.COMPROMISED_MERCHANT

    is_declined = rng.random(count) < np.where(scenario == Scenario.GENUINE, 0.025, 0.12)
    return Payments(ts, card, device, merchant, _minor(amount), channel, is_declined, scenario)


def _stolen_cards(population: Population, bursts: int, start: int, days: int, rng: np.random.Generator) -> Payments:
    """Bursts on one card from one foreign device: a small try, then large purchases, more and more declined."""
    shape = (bursts, BURST_PAYMENTS)
    begin = _times_of_day(bursts, start, days, rng)
    gaps = np.cumsum(rng.integers(MINUTE // 6, 3 * MINUTE, size=shape), axis=1)
    # a burst that would run past the end starts so much earlier
    ts = np.minimum(begin, start + days * DAY - 1 - 3 * MINUTE * BURST_PAYMENTS)[:, None] + gaps
    step = np.broadcast_to(np.arange(BURST_PAYMENTS), shape)
    amount = np.where(step == 0, 100.0, rng.lognormal(np.log(18_000), 0.5, shape))
    flat = bursts * BURST_PAYMENTS
    return Payments(
        ts=ts.ravel(),
        card=np.repeat(rng.integers(0, population.cards, bursts), BURST_PAYMENTS),
        device=np.repeat(rng.integers(0, population.devices, bursts), BURST_PAYMENTS),
        merchant=rng.choice(len(population.merchant_weight), size=flat, p=population.merchant_weight),
        amount=_minor(amount.ravel()),
        channel=np.full(flat, ECOMMERCE),
        declined=(rng.random(shape) < step / (BURST_PAYMENTS + 4)).ravel(),
        scenario=np.full(flat, int(Scenario.STOLEN_CARD)),
    )


def _times_of_day(count: int, start: int, days: int, rng: np.random.Generator) -> Int64:
    """Any day alike; two humps a day, at 13:00 and 18:30 UTC; to the microsecond."""
    peak = np.where(rng.random(count) < 0.5, 13.0, 18.5)
    hour = np.mod(rng.normal(peak, 3.0), 24.0)
    moment = start + rng.integers(0, days, count) * DAY + (hour * 60 * MINUTE).astype(np.int64)
    return np.minimum(moment, start + days * DAY - 1)


def _windows(size: int, entities: Int64, start: int, days: int, length: int, rng: np.random.Generator) -> Int64:
    """int64[size]: when the bad time of each entity begins; never, for those not chosen."""
    begins = np.full(size, np.iinfo(np.int64).max // 2)
    begins[entities] = start + rng.integers(0, max(1, days - length), len(entities)) * DAY
    return begins


def _inside(ts: Int64, begins: Int64, length: int) -> npt.NDArray[np.bool_]:
    return (ts >= begins) & (ts < begins + length * DAY)


def _minor(amount: npt.NDArray[np.float64]) -> Int64:
    return np.clip(np.rint(amount), 50, MAX_AMOUNT_MINOR).astype(np.int64)
