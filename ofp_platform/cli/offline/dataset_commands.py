"""`ofp dataset`: what is published, whether it still is what was built, and how to open it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.files.lineage_destination import OpenLineage, demand_open_lineage, tell_lineage
from ofp_platform.cli.offline.build_context import open_build_context
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, plain, print_facts, short, when
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.offline.datasets.dataset_difference import ContentDifference
    from ofp_platform.storage.objects import ObjectStore
    from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, SkewTable

app = typer.Typer(help="List, show, verify, compare and load published datasets.", no_args_is_help=True)
Dataset = Annotated[
    str,
    typer.Argument(metavar="NAME:IDENTITY", help="Dataset; the first 8 digits of the identity are enough.", show_default=False),
]
_LEAST = 8


def find_manifest(objects: ObjectStore, dataset: str) -> DatasetManifest:
    """The manifest of NAME:IDENTITY. There is no newest one: an identity is always named.

    Raises:
        CommandRefused: not of that form, none such, or more than one. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    from ofp_platform.offline.datasets.publication import load_manifest

    name, _, beginning = dataset.partition(":")
    if not name or len(beginning) < _LEAST or not set(beginning) <= set("0123456789abcdef"):
        raise CommandRefused(
            f"a dataset is named NAME:IDENTITY, with the first {_LEAST} or more hex digits of its identity;"
            " `ofp dataset list` shows them"
        )
    parts = (path.split("/") for path in objects.list(f"ofs/datasets/{name}"))
    identities = sorted(
        {part[3] for part in parts if len(part) == 5 and part[4] == "manifest.json" and part[3].startswith(beginning)}
    )
    if len(identities) != 1:
        problem = "more than one dataset is" if identities else "no dataset is"
        raise CommandRefused(
            f"{problem} published as {name} with an identity that begins with {beginning}; see `ofp dataset list`"
        )
    return load_manifest(objects, name, identities[0])


@app.command("list", short_help="List published datasets.")
def show_list(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the datasets to list; default: all.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Every dataset that is published: name and identity, rows, purpose, and what replaced it."""
    from ofp_platform.offline.datasets.publication import load_manifest

    with open_build_context(resolve(home, profile)) as (_, build_context):
        facts: list[dict[str, Any]] = []
        lines: list[str] = []
        for row in build_context.index.list(name):
            manifest = load_manifest(build_context.objects, row.dataset_name, row.dataset_identity)
            fact = {
                "row_count": manifest.row_count,
                "purpose": manifest.purpose,
                "as_of_basis": manifest.as_of_basis,
            }
            facts.append({**plain(row), **fact})
            details = [f"{manifest.row_count:,} rows, {manifest.purpose.value}, {manifest.as_of_basis.value}"]
            if row.superseded_by:
                details.append(f"superseded by {', '.join(map(short, row.superseded_by))}")
            lines += item(
                f"{row.dataset_name}:{short(row.dataset_identity)}",
                when(row.published_at_utc, "published at an unknown time"),
                details=details,
            )
    print_facts(facts, lines or ["nothing is published"], as_json=json)


@app.command(short_help="Show a manifest.")
def show(
    dataset: Dataset,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Show a dataset: its meaning, its sources, and the gates it passed."""
    manifest = find_manifest(resolve(home, profile).open_objects(), dataset)
    rows = list(_manifest_lines(manifest))
    width = max(len(name) for name, _ in rows)
    print_facts(manifest, [f"{name:<{width}}  {text}" for name, text in rows], as_json=json)


def _manifest_lines(manifest: DatasetManifest) -> Iterator[tuple[str, str]]:
    yield "dataset", f"{manifest.dataset_name}:{manifest.dataset_identity}"
    yield "manifest", manifest.digest
    yield "content", f"{manifest.content_digest}, {manifest.row_count:,} rows in the order {manifest.row_order}"
    yield "purpose", f"{manifest.purpose.value}, asked for as {manifest.request_id}"
    if manifest.supersedes is not None:
        yield "supersedes", manifest.supersedes
    pins = manifest.context_pins
    yield "run", f"{pins.scenario_id}/{pins.run_id}, facts {manifest.run_facts.reference}"
    for span in manifest.replay_basis.partitions:
        yield "replay", f"{manifest.stream_name} {span.partition_id} from {span.start or 'its start'} to {span.next}"
    pack = manifest.feature_pack
    yield "pack", f"{pack.pack_id} revision {pack.revision}, {pack.digest}"
    yield "groups", ", ".join(f"{group.group_name}:{group.group_version}" for group in manifest.feature_groups)
    yield "rows know", f"{manifest.as_of_basis.value}: {_KNOW[manifest.as_of_basis.value]}"
    if manifest.graph_version is not None:
        yield "identities", f"links up to version {manifest.graph_version.graph_version} of {manifest.graph_version.stream_name}"
    if manifest.label_basis is not None:
        label = manifest.label_basis
        yield "label", f"{label.label_type} as of {label.as_of_utc}, mature after {label.maturity_seconds / 86_400:g} days"
    gates = manifest.gates
    counts = gates.completeness
    yield (
        "gate: completeness",
        (
            f"{counts.records:,} records: {counts.applied:,} applied, {counts.duplicates:,} copies, {counts.failed:,} failed,"
            f" {counts.ignored:,} ignored, {counts.other_run:,} of another run; {counts.failed_for_groups:,} fail for a group of"
            f" the dataset (policy: a share of {manifest.policy.max_failed_share})"
        ),
    )
    if counts.amendments:
        shown = f": {', '.join(counts.first_unmet)}" if counts.first_unmet else ""
        yield "amendments", f"{counts.amendments:,}, of them {counts.unmet_amendments:,} of no event in the replay{shown}"
    if gates.labels is not None:
        labels = gates.labels
        yield (
            "gate: labels",
            (
                f"coverage {labels.coverage} of {labels.mature:,} mature rows (policy:"
                f" {manifest.policy.min_label_coverage}); {labels.labelled:,} labelled, {labels.immature:,} immature"
            ),
        )
        if labels.voided:
            shown = ", ".join(labels.voided_events)
            yield (
                "labels of voided events",
                f"{labels.voided:,} rows, whose events an amendment voided by the end of the replay: {shown}",
            )
    yield (
        "gate: leakage",
        (
            f"{gates.label_rows_checked:,} labelled rows held against every assertion,"
            f" the features of {gates.feature_rows_checked:,} rows computed again"
        ),
    )
    if gates.parity is not None:
        parity = gates.parity
        yield (
            "gate: parity",
            (
                f"{parity.match:,} of {parity.anchors:,} decisions MATCH, {parity.mismatch:,} MISMATCH,"
                f" {parity.uncheckable:,} UNCHECKABLE"
            ),
        )
    if manifest.skew is not None:
        yield "skew", _skew(manifest.skew)
    yield "policy", f"{manifest.policy.policy_id} revision {manifest.policy.revision}"
    if manifest.policy_rev is not None:
        yield "policy_rev", manifest.policy_rev
    yield "built by", manifest.ofs_code_release_id
    for role in ("row_key", "as_of", "payload", "feature", "label"):
        names = [f"{column.name} {column.type}" for column in manifest.columns if column.role == role]
        if names:
            yield f"columns: {role}", ", ".join(names)
    for file in manifest.files:
        yield "file", f"{file.path}, {file.rows:,} rows, {file.bytes:,} bytes"


def _skew(table: SkewTable) -> str:
    """How the rows differ from what was served, the features that differ most first."""
    scope = f"{table.compared:,} of {table.decisions:,} decisions about {table.rows:,} rows compared with what was served"
    if not table.compared:
        return f"{scope}: nothing is known of it"
    differing = sorted(((-skew.differing, name, skew) for name, skew in table.features.items() if skew.differing))
    shares = [f"{name} {skew.share} ({skew.differing:,} of {skew.compared:,})" for _, name, skew in differing]
    return f"{scope}: {'; '.join(shares) if shares else 'no feature differs'}"


_KNOW = {
    "decision": "what the recorded decision knew",
    "ingest_time": "what was admitted no later than their own event",
    "event_time": "the whole replay, hindsight included",
}


@app.command(short_help="Verify that a dataset is still what was built.")
def verify(dataset: Dataset, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Compute the digest of every file and of the content again, and compare the manifest with what index and ledger recorded.

    Exit code 1 if something is not what the manifest says, or the manifest is not the one that was published. Where there
    is no database, or none that answers, only the former is looked at, and that is said.
    """
    from ofp_platform.offline.datasets.dataset_index import DatasetIndex
    from ofp_platform.offline.datasets.dataset_verification import verify_dataset
    from ofp_platform.storage.postgres import DatabaseUnavailable, open_pool

    environment = resolve(home, profile)
    objects = environment.open_objects()
    manifest = find_manifest(objects, dataset)
    recorded_problems: list[str] = []
    not_compared = None
    if environment.database_url is None and not environment.postgres_folder.is_dir():
        not_compared = "no database here"
    else:
        try:
            with open_pool(environment.dsn("offline")) as pool:
                recorded_problems = DatasetIndex(pool, objects).recorded_problems(manifest)
        except DatabaseUnavailable:
            not_compared = "the database does not answer"
    with bar(Console(stderr=True), "Verifying rows", manifest.row_count) as advance:
        problems = recorded_problems + verify_dataset(objects, manifest, advance)
    for problem in problems:
        typer.echo(problem, err=True)
    lines = []
    if not problems:
        size = sum(file.bytes for file in manifest.files)
        lines.append(f"{len(manifest.files)} files, {size:,} bytes: as they were built")
        lines.append(f"{manifest.row_count:,} rows, content digest {manifest.content_digest}: computed again, equal")
        if not_compared is None:
            lines.append("the manifest is the one that index and build recorded")
        else:
            typer.echo(f"{not_compared}: what index and build recorded was not compared", err=True)
    facts = {
        "dataset_name": manifest.dataset_name,
        "dataset_identity": manifest.dataset_identity,
        "content_digest": manifest.content_digest,
        "problems": problems,
        "recorded_compared": not_compared is None,
    }
    print_facts(facts, lines, as_json=json)
    if problems:
        raise typer.Exit(1)


@app.command(short_help="Compare two datasets.")
def diff(one: Dataset, other: Dataset, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Compare two datasets: their meaning field by field, their content column by column."""
    from ofp_platform.offline.datasets.dataset_difference import content_difference, meaning_differences

    objects = resolve(home, profile).open_objects()
    first, second = find_manifest(objects, one), find_manifest(objects, other)
    meaning = meaning_differences(first, second)
    lines = ["meaning: the same" if not meaning else "meaning:"]
    lines += [f"  {difference.path}: {_short(difference.one)} | {_short(difference.other)}" for difference in meaning]
    try:
        content = content_difference(objects, first, second)
    except ValueError as error:
        raise CommandRefused(str(error)) from None
    lines += ["content: the same"] if content is None else ["content:", *(f"  {line}" for line in _content_lines(content))]
    print_facts({"meaning": meaning, "content": content}, lines, as_json=json)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else readable_json(value)


def _content_lines(content: ContentDifference) -> Iterator[str]:
    alone = f"{content.only_in_one:,} in the first alone, {content.only_in_other:,} in the second"
    yield f"{content.shared_rows:,} rows in both, {alone}"
    for which, names in (("first", content.columns_only_in_one), ("second", content.columns_only_in_other)):
        if names:
            yield f"columns of the {which} alone: {', '.join(names)}"
    for name, count in sorted(content.columns.items(), key=lambda item: (-item[1], item[0])):
        yield f"{name}: another value in {count:,} of the shared rows"
    if not content.columns:
        yield "the shared rows have the same values"


@app.command(short_help="Tell a catalogue where a dataset comes from.")
def export(
    dataset: Dataset, openlineage: OpenLineage, json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Tell the build of a dataset as a run of OpenLineage: the stream and its basis, the columns, and the digests of manifest,
    content and pack as facets. The same dataset is the same run.
    """
    demand_open_lineage()
    from ofp_platform.lineage.open_lineage import dataset_event
    from ofp_platform.offline.datasets.dataset_index import DatasetIndex

    environment = resolve(home, profile)
    with environment.open_plane_without_log("offline") as plane:
        manifest, store = find_manifest(plane.objects, dataset), plane.objects.url
        index = DatasetIndex(plane.pool, plane.objects).list(manifest.dataset_name)
    times = {known.dataset_identity: known.published_at_utc for known in index}
    published_at = times.get(manifest.dataset_identity)
    if published_at is None:
        raise CommandRefused(
            f"{manifest.dataset_name}:{manifest.dataset_identity[:12]}: this ledger has no build that published it, so nobody"
            " knows when: export it where it was built"
        )
    tell_lineage(lambda: dataset_event(manifest, store, published_at), openlineage, as_json=json)


@app.command(short_help="Show how to open a dataset, or export it.")
def load(
    dataset: Dataset,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Write rows and manifest into this new folder.", show_default=False),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """One line each for pandas, Polars and DuckDB, with the real path. The bytes are verified first."""
    from ofp_platform.offline.datasets.publication import verify_files

    objects = resolve(home, profile).open_objects()
    manifest = find_manifest(objects, dataset)
    if to is None and objects.folder is None:
        raise CommandRefused(f"{objects.url} is not on this machine: name a folder to export to with --to")
    if problems := verify_files(objects, manifest):
        raise CommandRefused("\n".join(problems))
    if to is not None:
        folder = _exported(objects, manifest, to)
    else:
        assert objects.folder is not None  # refused above
        folder = (objects.folder / manifest.files[0].path).parent
    lines = [
        f'import pandas; rows = pandas.read_parquet({str(folder)!r}, dtype_backend="pyarrow")',
        f"import polars; rows = polars.read_parquet({str(folder / '*.parquet')!r})",
        f"import duckdb; rows = duckdb.read_parquet({str(folder / '*.parquet')!r})",
    ]
    print_facts({"folder": folder, "files": sorted(file.name for file in folder.glob("*.parquet"))}, lines, as_json=json)


def _exported(objects: ObjectStore, manifest: DatasetManifest, folder: Path) -> Path:
    """Write the dataset into a new folder, whole or not at all; the folder of its Parquet files."""
    if folder.exists():
        raise CommandRefused(f"{folder} exists: name a new folder")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "rows").mkdir(parents=True)
        for file in manifest.files:
            (partial / "rows" / Path(file.path).name).write_bytes(objects.get(file.path))
        (partial / "manifest.json").write_bytes(manifest.encoded())
        partial.rename(folder)
    except OSError as error:
        raise CommandRefused(f"{folder}: {error.strerror}") from None
    return folder.resolve() / "rows"
