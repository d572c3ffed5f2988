"""Shared by `ofp init --events` and `ofp pack infer`: a file is looked at, and the files of a deployment follow from that."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ofp_platform.cli.terminal.progress import wheel
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.tables.proposal import Choices, ColumnStudy, Proposal
    from ofp_platform.tables.proposal_text import LabelFile

_READ_BYTES = 1 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}", re.ASCII)


@dataclass(frozen=True)
class FileStudy:
    """A file of events as it was looked at: the proposal, and the studies behind it by column."""

    file: Path
    proposal: Proposal
    studies: dict[str, ColumnStudy]


def look(file: Path, choices: Choices) -> FileStudy:
    """Look at every row of a file of events.

    Raises:
        TableFault: it cannot be read, or what it needs was not seen in it.
    """
    from ofp_platform.tables.proposal import propose, study
    from ofp_platform.tables.table_file import TableFile

    with wheel(Console(stderr=True), f"Looking at {file.name}"):
        columns = study(TableFile(file).parts())
    studies = {column.name: column for column in columns}
    return FileStudy(file, propose(columns, choices), studies)


def look_at_labels(file: Path, events: FileStudy) -> LabelFile:
    """Look at every row of a file of labels: which column names events is seen by its values.

    Raises:
        TableFault: it cannot be read. CommandRefused: no column names events, or none has a time.
    """
    from ofp_platform.tables.cell_values import TimeFormat
    from ofp_platform.tables.proposal import study
    from ofp_platform.tables.proposal_text import LabelFile
    from ofp_platform.tables.table_file import TableFile

    event_id = events.proposal.event_id
    if event_id is None:
        raise CommandRefused(
            f"{events.file} has no column with an id of its own for each row, so no other file can name its events;"
            " name one with --id"
        )
    known_ids = events.studies[event_id].distinct
    with wheel(Console(stderr=True), f"Looking at {file.name}"):
        columns = study(TableFile(file).parts())
    shares = {column.name: len(column.distinct & known_ids) / max(len(column.distinct), 1) for column in columns}
    about = max(shares, key=lambda name: shares[name])
    if not shares[about]:
        raise CommandRefused(
            f"{file}: no column has a value of column {event_id!r} of {events.file}: nothing is said about its events"
        )
    times = [column for column in columns if column.name != about and not column.absent and (column.moments or column.epoch)]
    if not times:
        raise CommandRefused(f"{file}: no column says for each row when it became known, and nothing can be learned without that")
    time = times[0]
    values = [column for column in columns if column.name not in (about, time.name) and column.booleans and not column.absent]
    return LabelFile(
        event_id=about,
        observed=time.name,
        time_format=TimeFormat.ISO if time.moments else time.epoch or TimeFormat.ISO,
        names_zone=not time.moments or time.has_zone,
        value_column=values[0].name if values else None,
        source=re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem) or "labels",
    )


def name_of(file: Path, name: str | None) -> str:
    """The name of the deployment: the one given, else the file's.

    Raises:
        CommandRefused: it cannot be one.
    """
    own_name = name or re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_")
    if _NAME.fullmatch(own_name) is None:
        raise CommandRefused(f"--name: {own_name!r} is none: a letter, then letters, digits and _, lower case, at most 51")
    return own_name


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def files_of(file_study: FileStudy, labels: LabelFile | None, name: str, label_delay: str) -> dict[str, str]:
    """The files of a deployment by name, each of them checked as the program will read it."""
    from ofp_platform.registry.pack import load_pack
    from ofp_platform.tables import proposal_text

    proposal = file_study.proposal
    pack = proposal_text.pack_text(proposal, name)
    load_pack(pack, "pack.yaml")
    return {
        "profile.yaml": proposal_text.profile_text(proposal, name, digest_of_file(file_study.file)),
        "pack.yaml": pack,
        "import.yaml": proposal_text.import_text(proposal, labels, label_delay),
        "decision.yaml": proposal_text.decision_text(proposal),
        "build_policies.yaml": proposal_text.policies_text(name),
    }


def summary(file_study: FileStudy) -> Iterator[str]:
    """The part that each column was given, a line each."""
    proposal = file_study.proposal
    rows = [("time", proposal.time, "" if proposal.names_zone else "names no zone: taken for UTC")]
    if proposal.event_id is None:
        rows.append(("event id", "", "none: a digest of the row"))
    else:
        rows.append(("event id", proposal.event_id, ""))
    rows += [(kind, column, "") for kind, column in proposal.keys.items()]
    if proposal.amount is not None:
        rows.append(("amount", proposal.amount, f"{proposal.digits} digits behind the point" if proposal.digits else ""))
    if proposal.label is not None:
        rows.append(("label", proposal.label, "no feature: it says what is to be learned"))
    rows += [("yes or no", column, "") for column in proposal.booleans]
    rows += [("integer", column, "") for column in proposal.integers]
    rows += [("text", column, "") for column in proposal.categories]
    rows += [("left out", column, reason) for column, reason in proposal.left_out.items()]
    width = max(len(column) for _, column, _ in rows)
    yield f"{file_study.file}: {proposal.rows:,} rows"
    for part, column, remark in rows:
        yield f"  {part:<10} {column:<{width}}  {remark}".rstrip()
