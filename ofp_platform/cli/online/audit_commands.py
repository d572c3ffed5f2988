"""`ofp audit`: records become leaves of a signed log; the log is verified, proven from, and handed on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

if TYPE_CHECKING:
    from ofp_platform.audit.appending import AppendOutcome
    from ofp_platform.audit.signing_keys import SigningKey
    from ofp_platform.audit.verification import Verification
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.audit import AuditProof

app = typer.Typer(help="Keep records in a signed log, verify it, and prove one record from it.", no_args_is_help=True)
Key = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="File of the key that signs; default: OFP_AUDIT_KEY holds it.", show_default=False
    ),
]
KEY_DIGITS = 64
APPENDING_EVERY = "appending every "
_AFTER_TROUBLE_SECONDS = 1.0


@app.command(short_help="Append every record that is not in the log yet, under a signed head.")
def append(
    every: Annotated[
        float | None,
        typer.Option("--every", metavar="SECONDS", min=0.01, help="Append again, so long after each time.", show_default=False),
    ] = None,
    key: Key = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Decisions, manifests of datasets, label assertions, steps of runs and governance facts become leaves, each once; heads over
    them are signed and put into the object store. A record of incomplete provenance is set aside, and looked at again next time.
    With `--every` it goes on until SIGTERM or Ctrl-C: an outage is told in words, and waited for.
    """
    from ofp_platform.audit.appending import append_records

    if every is not None and json:
        raise CommandRefused("--json prints what one append did: leave it out, or --every")
    environment = resolve(home, profile)
    with environment.open_plane_without_log("offline") as plane:
        follow_as("audit", plane.profile.context_pins, environment, ends=every is None)
        if every is not None:
            _append_every(every, plane, signing_key(key))
            return
        outcome = append_records(plane.pool, plane.objects, signing_key(key), now)
    _print_outcome(outcome, as_json=json)


def _append_every(seconds: float, plane: Plane, key: SigningKey) -> None:
    """Append again and again, until a signal: at its end one is whole."""
    from psycopg import Error

    from ofp_platform.audit.appending import GRACE_US, Appender
    from ofp_platform.cli.terminal.refusals import words_for
    from ofp_platform.storage.objects import ObjectStoreUnavailable

    stop, appender = stop_on_signals(), Appender(plane.pool, plane.objects, key, now, grace_us=GRACE_US)
    typer.echo(f"{APPENDING_EVERY}{seconds:g} s")
    while not stop.is_set():
        try:
            outcome = appender.append()
        except (Error, ObjectStoreUnavailable) as error:
            words = words_for(error)
            if words is None:
                raise
            typer.echo(f"not appended: {words}", err=True)
            stop.wait(_AFTER_TROUBLE_SECONDS)
            continue
        if outcome.heads or outcome.is_finished or outcome.quarantined:
            _print_outcome(outcome, as_json=False)
        stop.wait(seconds)
    typer.echo("stopped")


def _print_outcome(outcome: AppendOutcome, *, as_json: bool) -> None:
    heads = [head.wire() for head in outcome.heads]
    aside = [dict(zip(("leaf_kind", "subject", "reason"), row, strict=True)) for row in outcome.quarantined]
    lines = [f"head of {head.tree_size:,} leaves, root {head.root_hash}" for head in outcome.heads]
    lines.append(f"{outcome.leaf_count:,} leaves added" if heads else "nothing is new: no head was signed")
    if outcome.is_finished:
        lines.append("the object of the head before was put: an append was stopped in front of it")
    lines += _quarantine(outcome.quarantined)
    facts = {"leaf_count": outcome.leaf_count, "heads": heads, "quarantined": aside, "is_finished": outcome.is_finished}
    print_facts(facts, lines, as_json=as_json)


@app.command(short_help="Verify the whole log, and every record in it.")
def verify(
    public_key: Annotated[
        str | None,
        typer.Option(
            "--public-key",
            metavar="HEX",
            help="The key that signed first; without it the log's own word is taken.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Check each leaf, node, root, head, signature and object, and that each record is the one that its leaf names. Every fault
    is printed with its place. Exit code 1 if there is one, or no head at all. Records behind the newest head are counted, not
    proven.
    """
    from ofp_platform.audit.database_view import database_view
    from ofp_platform.audit.verification import verify_log

    if public_key is not None:
        demand_public_key(public_key)
    with (
        resolve(home, profile).open_plane_without_log("auditor") as plane,
        database_view(plane.pool, plane.objects) as view,
    ):
        verification = verify_log(view, public_key)
    facts = {
        "log_id": verification.log_id,
        "head": None if verification.head is None else verification.head.wire(),
        "heads": verification.head_count,
        "leaves": verification.leaf_count,
        "proven_leaves": verification.proven_leaves,
        "co_signed_by": [other.key_id for other in verification.co_signatures if _is_of_head(verification, other.tree_size)],
        "pending": verification.pending,
        "quarantined": [dict(zip(("leaf_kind", "subject", "reason"), row, strict=True)) for row in verification.quarantined],
        "faults": [
            {"kind": fault.kind.value, "subject": fault.subject, "leaves": fault.leaves, "words": fault.words}
            for fault in verification.faults
        ],
    }
    print_facts(facts, _verification_lines(verification, is_key_known=public_key is not None), as_json=json)
    if verification.faults:
        if json:
            typer.echo(f"{len(verification.faults):,} faults", err=True)
        raise typer.Exit(1)


@app.command(short_help="Prove one record, in a file that anybody can check.")
def prove(
    identifier: Annotated[
        str,
        typer.Argument(metavar="ID", help="A decision, a label assertion, a dataset's identity, a fact's digest, RUN/STEP."),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the proof there.", show_default=False)] = None,
    with_payload: Annotated[
        bool, typer.Option("--with-payload", help="With the payload of the event decided on: it may be personal data.")
    ] = False,
    with_events: Annotated[
        bool, typer.Option("--events/--no-events", help="With position and hash of each event inside a value.")
    ] = True,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The way from one record to the newest signed head; of a decision also to its snapshot, its event, and the events inside its
    values. `python contracts/verify_proof.py FILE --public-key HEX` checks the file with nothing but Python. At most 32 kB.
    """
    from ofp_platform.audit.proving import proof_file, prove_record
    from ofp_platform.cli.online.proof_evidence import proof_of_decision

    with resolve(home, profile).open_plane_without_log("auditor") as plane:  # the log is opened for a decision alone
        with plane.pool.connection() as connection:
            proof = prove_record(connection, plane.objects, identifier)
        if proof.leaf.leaf_kind == "decision":
            proof = proof_of_decision(plane, proof, with_payload=with_payload, with_events=with_events)
    content = proof_file(proof)
    if out is not None:
        try:
            out.write_bytes(content + b"\n")
        except OSError as error:
            raise CommandRefused(f"the proof cannot be written to {out}: {error.strerror}") from None
    print_facts(proof.wire(), _proof_lines(proof, len(content), out), as_json=json)


@app.command(short_help="Sign the newest head with another key, as a witness.")
def cosign(key: Key = None, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Sign the newest head beside the key of the log, in an object of its own. Refused where the log does not continue the head
    that this key signed last.
    """
    from ofp_platform.audit.co_signing import co_sign

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        signature = co_sign(connection, plane.objects, signing_key(key))
    print_facts(signature.wire(), [f"head of {signature.tree_size:,} leaves signed by {signature.key_id}"], as_json=json)


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def signing_key(file: Path | None) -> SigningKey:
    """The key of a file, or else of the environment."""
    from ofp_platform.audit.signing_keys import VARIABLE, read_key

    return read_key(file, os.environ.get(VARIABLE))


def demand_public_key(text: str) -> None:
    """Refuse what is no public key."""
    if len(text) != KEY_DIGITS or text.strip("0123456789abcdef"):
        raise CommandRefused(f"a public key is {KEY_DIGITS} hex digits, in lower case, as `ofp audit key new` prints it")


def _is_of_head(verification: Verification, tree_size: int) -> bool:
    return verification.head is not None and verification.head.tree_size == tree_size


def _quarantine(rows: Any) -> Iterator[str]:
    for leaf_kind, subject, reason in rows:
        yield from item("in quarantine", leaf_kind, subject, details=(reason,))


def _verification_lines(verification: Verification, *, is_key_known: bool) -> Iterator[str]:
    head = verification.head
    if head is not None:
        yield f"log          {verification.log_id}"
        yield f"newest head  {head.tree_size:,} leaves at {when(head.at_utc)}, root {head.root_hash}"
        yield f"signed by    {head.key_id}"
        for other in verification.co_signatures:
            if _is_of_head(verification, other.tree_size):
                yield f"and by       {other.key_id}"
        counts = f"{verification.proven_leaves:,} of {verification.leaf_count:,} leaves, {verification.head_count:,} heads"
        yield f"proven       {counts}"
        if not is_key_known:
            yield "Compare log and key with what you were given elsewhere, or name the first key: --public-key HEX."
    for leaf_kind, count in sorted(verification.pending.items()):
        yield f"not proven   {count:,} {leaf_kind} behind the newest head"
    yield from _quarantine(verification.quarantined)
    for fault in verification.faults:
        yield f"FAULT {fault.line}"
    yield f"{len(verification.faults):,} faults" if verification.faults else "VERIFIED"


def _proof_lines(proof: AuditProof, size: int, out: Path | None) -> list[str]:
    lines = [
        f"{proof.leaf.leaf_kind} {proof.leaf.subject}",
        f"leaf {proof.leaf_index} of {proof.head.tree_size:,}, {len(proof.path)} hashes to root {proof.head.root_hash}",
        f"head of {when(proof.head.at_utc)}, signed by {proof.head.key_id}",
    ]
    if proof.snapshot is not None:
        lines.append(f"snapshot {proof.snapshot.feature_snapshot_hash}, {len(proof.events):,} events inside its values")
    if out is not None:
        lines.append(f"wrote {out}: {size:,} bytes")
    return lines
