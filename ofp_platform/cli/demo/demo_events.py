"""The events of a demo: simulated payments, or the handbook file. Each choice of parameters is a run with pins of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.handbook_file import HandbookFileError
from ofp_platform.simulation.parameters import parameters_of
from ofp_platform.simulation.payments import PaymentSimulation, SimulationSummary, simulate_payments
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world.makers import MadeWorld, handbook_world, payments_world

_BATCH = 50_000


@dataclass(frozen=True)
class Replay:
    """A replay: the profile of its run, how many records it delivers, and the deliveries (each call starts again).

    `event_type` is the one that decisions are made on; `facts` are (what, how many) for the summary. `make_world`: all of it as a
    world, for a log that has a door.
    """

    profile: Profile
    event_type: str
    records: int
    batches: Callable[[], Iterator[Deliveries]]
    facts: list[tuple[str, str]]
    make_world: Callable[[], MadeWorld]


def simulated_payments(profile: Profile, payments: int, *, log_kind: str) -> Replay:
    """The simulation of that many payments, with all its disturbances."""
    made_of = parameters_of(PaymentSimulation(profile.context_pins, payments=payments))
    run = run_of(profile, {"parameter_hash": digest_of(made_of)}, log_kind)
    simulation = PaymentSimulation(run.context_pins, payments=payments)
    stream = simulate_payments(simulation)
    return Replay(
        run,
        "card_payment",
        len(stream.deliveries),
        lambda: stream.batches(_BATCH),
        _facts(stream.summary),
        lambda: payments_world(simulation, stream),
    )


def _facts(summary: SimulationSummary) -> list[tuple[str, str]]:
    frauds = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in summary.frauds.items())
    wrong = summary.disturbances
    return [
        ("payments", f"{summary.payments:,}, of which {summary.declined:,} declined"),
        ("entities", f"{summary.accounts:,} accounts, {summary.cards:,} cards, {summary.merchants:,} merchants"),
        ("frauds", f"{frauds}; {summary.fraud_reports:,} reported, {summary.reports_pending:,} not yet due"),
        ("out of order", f"{summary.out_of_order:,} records, of which {summary.late:,} late by 10 minutes to 6 hours"),
        ("copies", f"{wrong.duplicates} duplicates, {wrong.retries} producer retries"),
        (
            "bad events",
            f"{wrong.wrong_type} of a wrong type, {wrong.missing_field} without a field, {wrong.future} in 2099,"
            f" {wrong.foreign_pins} of another run",
        ),
    ]


def handbook_file(profile: Profile, path: Path, *, log_kind: str) -> Replay:
    """The transactions of a handbook file up to its last one, and the fraud reports that are due by then.

    Raises:
        HandbookFileError: the file cannot be used.
    """
    try:
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HandbookFileError(f"{path}: {error.strerror}") from None
    run = run_of(profile, {"manifest_fingerprint": fingerprint}, log_kind)
    replay = HandbookReplay(path, run.context_pins)
    transactions, frauds = replay.counts()
    # as of the last transaction: reports of days without any would move the watermark past every event to decide on
    pending = replay.reports_pending()
    facts = [
        ("transactions", f"{transactions:,}"),
        ("fraud reports", f"{frauds - pending:,}, each 7 days after its transaction; {pending:,} not yet due"),
    ]
    records = transactions + frauds - pending
    return Replay(
        run,
        "transaction",
        records,
        lambda: replay.batches(_BATCH, until_last=True),
        facts,
        lambda: handbook_world(path, run.context_pins),
    )


def run_of(profile: Profile, digests: dict[str, str], log_kind: str) -> Profile:
    """The profile of the run with those digests in its pins: the shipped one where they are its own."""
    pins = profile.context_pins.model_copy(update=digests)
    if pins != profile.context_pins:
        # parameters of their own make a stream of their own: nothing of one replay ever stands in another's log
        stream = f"{profile.stream_name}-{digest_of(pins.wire())[:8]}"
        profile = profile.model_copy(update={"context_pins": pins, "stream_name": stream})
    if log_kind == profile.log_kind:
        return profile
    return profile.model_copy(update={"log_kind": log_kind, "stream_name": f"{profile.stream_name}-{log_kind}"})
