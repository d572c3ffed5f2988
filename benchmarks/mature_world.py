"""The mature world: card payments with five keys an event, windows that are full, Zipf keys, a hot merchant and a hot device.

A fifth of the keys is of each type. The history gives every account, card and customer the same number of events within the
30 days of the windows, and devices and merchants as many but for what the two hot keys take. The payments that come
live draw a person (account, card and customer), a device and a merchant by Zipf's law, beside the same two hot keys. Their
event times go on at the density of the history (of a small world: denser), however many come a second: the windows of a large
world stay as full as they are, and as much leaves them, and is pruned, as comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from benchmarks.event_columns import events_of
from benchmarks.world import DAY, PINS, START
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import format_time

KEY_TYPES = ("account", "card", "customer", "device", "merchant")
GROUPS = ("account_activity", "card_activity", "customer_activity", "device_activity", "merchant_activity", "merchant_risk")
HOT_MERCHANT_SHARE, HOT_DEVICE_SHARE, DECLINED_SHARE = 0.1, 0.01, 0.05
HISTORY_US = 30 * DAY
"""How long the history lasts: the longest window without its delay."""
HOT_PER_CENT = "one merchant 10%, one device 1%"
_MOST_GAP_US = 500_000
"""From one live event to the next: a question that is a few seconds old must not lie behind the horizon when it is asked."""
FILL_RECORDS = 250_000
"""Records of one append and one commit while the world is filled."""
_SPREAD = 2_654_435_761  # a prime: neighbours by rank are no neighbours by name
_PAYLOAD = (
    b'{"account_id":"account-%08d","amount_minor":%d,"card_id":"card-%08d","channel":"%b","customer_id":"customer-%08d",'
    b'"device_id":"device-%08d","merchant_id":"merchant-%08d","status":"%b"}'
)
_CHANNELS, _STATUSES = (b"ecommerce", b"pos", b"contactless"), (b"approved", b"declined")


def mature_profile(name: str, folder: Path, *, partitions: int = 4, commit_records: int = 2_000) -> Profile:
    """A profile with the pack `card_payments`, whose projector commits at most so many records at a time."""
    return Profile(
        profile_name=name,
        stream_name=name,
        partitions=partitions,
        partition_key="payload.account_id",
        context_pins=PINS,
        pack="card_payments",
        batch_records=commit_records,
        object_store_url=f"file://{folder}/objects",
    )


@dataclass(frozen=True)
class Members:
    """The keys of some events by number, int64[n] each; a person is an account, a card and a customer of one number."""

    person: Int64
    device: Int64
    merchant: Int64


@dataclass(frozen=True)
class Population:
    """Every key there is: `keys` of them, the hot two not counted. `exponent`: of Zipf's law among the ordinary ones.

    With 1 the first card would have 9% of all payments; with 0.5 and 40,000 cards it has 0.25%, and the hot two are what is hot.
    """

    keys: int
    exponent: float = 0.5

    @property
    def size(self) -> int:
        """Keys of one type."""
        return max(self.keys // len(KEY_TYPES), 1)

    @property
    def hot(self) -> int:
        """The number of the hot merchant, and of the hot device."""
        return self.size

    @cached_property
    def _zipf(self) -> np.typing.NDArray[np.float64]:
        weights = np.arange(1, self.size + 1, dtype=np.float64) ** -self.exponent
        cumulated: np.typing.NDArray[np.float64] = np.cumsum(weights) / weights.sum()
        return cumulated

    def _by_zipf(self, rng: np.random.Generator, count: int) -> Int64:
        ranks = np.searchsorted(self._zipf, rng.random(count)).astype(np.int64)
        return ranks * _SPREAD % self.size

    def live_members(self, rng: np.random.Generator, count: int) -> Members:
        """Members of events that come live."""
        person, device, merchant = (self._by_zipf(rng, count) for _ in range(3))
        return Members(person, *self._with_hot(rng, device, merchant))

    def ordinary_members(self, rng: np.random.Generator, count: int) -> Members:
        """Members as they come live, without the hot two."""
        return Members(*(self._by_zipf(rng, count) for _ in range(3)))

    def history_members(self, rng: np.random.Generator, keys: range, rounds: int) -> Members:
        """Members of a part of the history: each of these keys of every type once a round, each round in another order."""
        places = np.tile(np.arange(len(keys)), rounds)
        numbers = np.repeat(np.arange(rounds), len(keys))
        person, device, merchant = (
            (keys.start + (places + numbers * step) % len(keys)) * _SPREAD % self.size for step in (7_919, 104_729, 1_299_709)
        )
        return Members(person, *self._with_hot(rng, device, merchant))

    def _with_hot(self, rng: np.random.Generator, device: Int64, merchant: Int64) -> tuple[Int64, Int64]:
        count = len(device)
        return (
            np.where(rng.random(count) < HOT_DEVICE_SHARE, self.hot, device),
            np.where(rng.random(count) < HOT_MERCHANT_SHARE, self.hot, merchant),
        )


def payments(members: Members, ts: Int64, first: int, rng: np.random.Generator) -> EventColumns:
    """Payments of these members at these microseconds; their ids count from `first`."""
    count = len(ts)
    amounts = (100 * rng.lognormal(3.5, 1.0, count)).astype(np.int64) + 1
    channels, declined = rng.integers(len(_CHANNELS), size=count), (rng.random(count) < DECLINED_SHARE).astype(np.int64)
    columns = (members.person, amounts, members.device, members.merchant, channels, declined)
    payloads = [
        _PAYLOAD % (person, amount, person, _CHANNELS[channel], person, device, merchant, _STATUSES[status])
        for person, amount, device, merchant, channel, status in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return events_of("card_payment", PINS, [f"payment-{number:x}" for number in range(first, first + count)], ts, payloads)


@dataclass(frozen=True)
class MatureWorld:
    """A stream of payments: the population, events a key of the history, the seed."""

    population: Population
    events_per_key: int
    seed: int

    @property
    def gap(self) -> int:
        """Microseconds of event time from one event to the next."""
        return min(max(HISTORY_US // self.history_records, 1), _MOST_GAP_US)

    @property
    def history_records(self) -> int:
        """Events of the history."""
        return self.population.size * self.events_per_key

    def history(self) -> Iterator[EventColumns]:
        """The events of the history, group of keys by group of keys, each in time order over the whole time.

        A key's events then come in one or two commits, and the world is filled as fast as a catch-up; its rows are the same.
        """
        size, rounds = self.population.size, self.events_per_key
        step = max(FILL_RECORDS // rounds, 1)
        for begin in range(0, size, step):
            keys = range(begin, min(begin + step, size))
            count = len(keys) * rounds
            rng = np.random.default_rng([self.seed, 0, begin])
            # no two events of one time: those of a group lie between those of the others
            gap = HISTORY_US // (count + 1)
            ts = START + np.arange(count) * gap + begin * (gap // size)
            yield payments(self.population.history_members(rng, keys, rounds), ts, begin * rounds, rng)

    def live(self, first: int, ts: Int64) -> EventColumns:
        """Events `first` and on, as they come live at those microseconds."""
        rng = np.random.default_rng([self.seed, 1, first])
        return payments(self.population.live_members(rng, len(ts)), ts, first, rng)

    def hot(self, first: int, ts: Int64) -> EventColumns:
        """Events `first` and on, all at the hot merchant and a tenth of them on the hot device."""
        rng = np.random.default_rng([self.seed, 2, first])
        members = self.population.ordinary_members(rng, len(ts))
        members.merchant[:] = self.population.hot
        members.device[::10] = self.population.hot
        return payments(members, ts, first, rng)

    def fill(self, plane: Plane) -> ProjectionRow:
        """Append the history and project it, in large commits of the real projector; the projection afterwards.

        Raises:
            SystemExit: the log refused an event, or the projection did not apply one.
        """
        row = plane.ensure_live()
        projector = plane.projector(row)
        for columns in self.history():
            append(plane, columns)
            while (receipt := projector.apply_available(max_records=FILL_RECORDS)) is not None:
                if receipt.failures or receipt.applied != receipt.records:
                    raise SystemExit(f"the world of the benchmark is wrong: {receipt}")
        with plane.pool.connection() as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        return plane.row(row.projection_id)


def append(plane: Plane, columns: EventColumns) -> list[tuple[str, int]]:
    """Append events that are admitted at their own time; partition and offset of each.

    Raises:
        SystemExit: the log refused one.
    """
    receipt = plane.log.append_columns(columns, columns.ts)
    if receipt.refusals:
        raise SystemExit(f"the log refused: {receipt.refusals[0]}")
    return [(place[0], int(place[1])) for place in receipt.placed if isinstance(place, tuple)]


def questions(members: Members, as_of: int) -> list[bytes]:
    """get_features requests, each for the five keys of a payment and all groups that need no context."""
    groups = [{"group_name": group, "group_version": "v1"} for group in GROUPS]
    head = {"context_pins": PINS.wire(), "feature_groups": groups, "as_of_time_utc": format_time(as_of)}
    numbers = zip(members.person.tolist(), members.device.tolist(), members.merchant.tolist(), strict=True)
    return [
        orjson.dumps(
            {
                **head,
                "feature_keys": [
                    {"key_type": key_type, "key_id": f"{key_type}-{number:08d}"}
                    for key_type, number in zip(KEY_TYPES, (person, person, person, device, merchant), strict=True)
                ],
            }
        )
        for person, device, merchant in numbers
    ]
