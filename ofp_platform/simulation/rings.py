"""Transfers of accounts, some of which share a telephone: families openly, and a ring of mules that nobody links for a week.

Each account of the ring behaves as any other does; only together they send more than anybody. What ties them is a token of one
telephone, which the events do not carry: links of the context stream tell of it, those of the ring long after its transfers. Some
transfers were of another amount, or are reversed: an amendment says so a while later.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.simulation.delays import DelayModel, DelaySampler
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.identity import ContextPins, KeyType
from ofp_platform.vocabulary.identity_link import LINK, minted_id
from ofp_platform.vocabulary.times import format_time, parse_duration, parse_time

Int64 = npt.NDArray[np.int64]
DAY, HOUR, SECOND = parse_duration("1d"), parse_duration("1h"), parse_duration("1s")
SCHEMA_VERSION = "v1"
PHONE, DEVICE, MAIL = "phone", "device_print", "mail"
"""The types of identifier."""
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_TRANSFERS_A_DAY = 1.2
_RING_A_DAY = 3
_COLLECTORS = 2


@dataclass(frozen=True)
class RingSimulation:
    """The settings of a simulation; the same fields give the same records, to the byte. `start` in microseconds.

    `ring`: accounts of the ring, the last ones; `families`: pairs of accounts, the first ones. The ring begins `quiet_days` after
    the start; its links hold from the start, and are admitted `linked_after_days` after it. `amended`: transfers that are
    amended, every other one reversed, the others of half the amount.
    """

    pins: ContextPins
    seed: int = 0
    accounts: int = 300
    families: int = 20
    ring: int = 9
    days: int = 14
    amended: int = 60
    quiet_days: int = 3
    linked_after_days: int = 12
    start: int = parse_time("2026-01-01T00:00:00Z")

    def __post_init__(self) -> None:
        if self.ring < 2 or self.accounts < 2 * self.families + self.ring:
            raise ValueError("a ring has two accounts or more, and no account is of a family and of the ring")
        if not 0 <= self.quiet_days < self.days or not 0 <= self.linked_after_days <= self.days:
            raise ValueError("the ring begins, and is linked, within the days of the simulation")


@dataclass(frozen=True)
class EnvelopeDelivery:
    """An envelope, and when it is admitted, microseconds."""

    envelope: dict[str, Any]
    admitted_at: int


@dataclass(frozen=True)
class RingStream:
    """All that a simulation delivers: transfers and links in the order of admission, what amends transfers in that of these;
    and the accounts, the ring's last."""

    deliveries: Deliveries
    amendments: tuple[EnvelopeDelivery, ...]
    links: tuple[EnvelopeDelivery, ...]
    accounts: tuple[str, ...]
    ring: tuple[str, ...]


def simulate_ring(simulation: RingSimulation) -> RingStream:
    """Run a simulation; a few thousand records take a tenth of a second."""
    of_transfers, of_delays, of_amendments = np.random.SeedSequence(simulation.seed).spawn(3)
    rng = np.random.default_rng(of_transfers)
    accounts = tuple(f"account-{number:05d}" for number in range(simulation.accounts))
    first_of_ring = simulation.accounts - simulation.ring
    account, ts = _transfers(simulation, first_of_ring, rng)
    counterparty = rng.integers(_COLLECTORS, 2 * simulation.accounts, len(ts))
    is_ring = (account >= first_of_ring) & (ts >= simulation.start + simulation.quiet_days * DAY)
    counterparty[is_ring] = rng.integers(0, _COLLECTORS, int(is_ring.sum()))
    amount = np.clip(np.rint(rng.lognormal(np.log(9_000), 0.6, len(ts))), 100, 500_000).astype(np.int64)
    delays, _ = DelaySampler(DelayModel(), of_delays).draw(len(ts))
    payloads = [
        ijson_bytes(
            {
                "account_id": accounts[number],
                "amount_minor": minor,
                "counterparty_id": f"payee-{other:05d}",
                "observed_identifiers": _identifiers(number),
            }
        )
        for number, minor, other in zip(account.tolist(), amount.tolist(), counterparty.tolist(), strict=True)
    ]
    order = np.lexsort((np.arange(len(ts)), ts + delays))
    deliveries = Deliveries(
        schema_version=SCHEMA_VERSION,
        pins=(simulation.pins,),
        pins_index=np.zeros(len(ts), np.int32),
        event_ids=[f"transfer-{number:06d}" for number in order.tolist()],
        event_types=["transfer"] * len(ts),
        ts=ts[order],
        emitted_at=ts[order],
        admitted_at=(ts + delays)[order],
        payloads=[payloads[number] for number in order.tolist()],
    )
    amendments = _amendments(simulation, deliveries, np.random.default_rng(of_amendments))
    return RingStream(deliveries, amendments, _links(simulation, accounts), accounts, accounts[first_of_ring:])


def _amendments(simulation: RingSimulation, transfers: Deliveries, rng: np.random.Generator) -> tuple[EnvelopeDelivery, ...]:
    """Amendments of some of the transfers, an hour to a day after them and within the days of the simulation."""
    end = simulation.start + simulation.days * DAY
    made = []
    for place, number in enumerate(sorted(rng.choice(len(transfers), simulation.amended, replace=False).tolist())):
        transfer_ts = int(transfers.ts[number])
        ts = min(transfer_ts + int(rng.integers(HOUR, DAY)), end - 1)
        is_void = place % 2 == 0
        payload = orjson.loads(transfers.payloads[number])
        if not is_void:
            payload["amount_minor"] //= 2
        amends = {"event_class": "transfer", "event_id": transfers.event_ids[number], "ts_utc": format_time(transfer_ts)}
        head = {
            "event_id": f"amendment-{place:05d}",
            "event_type": "transfer_reversed" if is_void else "transfer",
            "schema_version": SCHEMA_VERSION,
            "ts_utc": format_time(ts),
            "amends": {**amends, "kind": "void" if is_void else "replace"},
        }
        made.append(EnvelopeDelivery({**head, **simulation.pins.wire(), "payload": payload}, ts + SECOND))
    return tuple(made)


def _transfers(simulation: RingSimulation, first_of_ring: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Account number and time (microseconds) of each transfer, in the order of time."""
    shape = (simulation.accounts, simulation.days)
    counts = rng.poisson(_TRANSFERS_A_DAY, shape)
    counts[first_of_ring:, simulation.quiet_days :] = _RING_A_DAY
    account = np.repeat(np.arange(simulation.accounts), counts.sum(axis=1))
    day = np.repeat(np.tile(np.arange(simulation.days), simulation.accounts), counts.ravel())
    ts = simulation.start + day * DAY + rng.integers(0, DAY, len(day))
    order = np.argsort(ts, kind="stable")
    return account[order], ts[order]


def _token(id_type: str, number: int) -> str:
    """Of letters alone: digits might pass for a card number."""
    return f"t_{sha256(f'{id_type} {number}'.encode()).hexdigest()[:20].translate(_LETTERS)}"


def _identifiers(account: int) -> list[dict[str, str]]:
    """The identifiers in an event of an account: device and mail are its own, in the ring as well."""
    return [{"id_token": _token(id_type, account), "id_type": id_type} for id_type in (DEVICE, MAIL)]


def _links(simulation: RingSimulation, accounts: tuple[str, ...]) -> tuple[EnvelopeDelivery, ...]:
    """Each account that shares a telephone, linked to the entity that the telephone is."""
    first_of_ring = simulation.accounts - simulation.ring
    pairs = [(number, number // 2, simulation.start) for number in range(2 * simulation.families)]
    link_time = simulation.start + simulation.linked_after_days * DAY
    pairs += [(number, simulation.families, link_time) for number in range(first_of_ring, simulation.accounts)]
    links = []
    for number, phone, admitted_at in pairs:
        payload = {
            "key_type": KeyType.ACCOUNT.value,
            "member": accounts[number],
            "canonical": minted_id(KeyType.ACCOUNT, PHONE, _token(PHONE, phone)),
            "effective_time_utc": format_time(simulation.start),
            "evidence": "registered with this telephone",
        }
        head = {"event_id": f"link-{number:05d}", "event_type": LINK, "schema_version": SCHEMA_VERSION}
        envelope = {**head, "ts_utc": format_time(admitted_at), **simulation.pins.wire(), "payload": payload}
        links.append(EnvelopeDelivery(envelope, admitted_at))
    return tuple(links)
