"""`ofp intent`: ask for datasets and rebuilds, and see what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.offline.run_line import line_of, list_lines
from ofp_platform.cli.options import ActorOrUser, AlwaysJson, AsJson, Home, ProfileSource, actor_or_user
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.offline.runs.run_ledger import RunLedger
    from ofp_platform.vocabulary.offline.build_plan import BuildPlan
    from ofp_platform.vocabulary.offline.build_run import BuildReceipt, BuildRun
    from ofp_platform.vocabulary.profile import Profile

app = typer.Typer(help="Check, submit and follow build intents.", no_args_is_help=True)
IntentFile = Annotated[Path, typer.Argument(metavar="FILE", help="Intent, JSON or YAML.", show_default=False)]
RunKey = Annotated[str, typer.Argument(metavar="RUN", help="Key of a run; its first 8 digits are enough.", show_default=False)]


@contextmanager
def _ledger(environment: Environment, profile: Profile | None = None) -> Iterator[RunLedger]:
    """The ledger; with a profile, new requests are held to its limits and policies."""
    from ofp_platform.offline.requests.policies import policies_of
    from ofp_platform.offline.runs.run_ledger import RunLedger
    from ofp_platform.storage.postgres import open_pool

    limits, policies = (None, None) if profile is None else (profile.builds, policies_of(profile))
    with open_pool(environment.dsn("offline")) as pool:
        yield RunLedger(pool, limits, policies)


@app.command(short_help="Print an intent for a training set of everything that is there.")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.", show_default=False)],
    label: Annotated[str, typer.Option("--label", help="Type of label that is to be learned.")] = "fraud",
    maturity: Annotated[
        str, typer.Option("--maturity", help="How old an event must be for its silence to count as a no, as in 14d.")
    ] = "14d",
    event_type: Annotated[
        str | None, typer.Option("--type", help="Event type with a row per event; default: the only one.", show_default=False)
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar="ID[:REVISION]", help="Build policy; without a revision its newest one.")
    ] = "fraud_training",
    json: AlwaysJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Print an intent (JSON) with everything pinned as it is now: one row per event, all of the log and all groups of its keys,
    labels as far as they are known. `ofp intent submit FILE` takes it; docs/intents.md says what can be changed.
    """
    from ofp_platform.cli.offline.build_context import open_build_context
    from ofp_platform.cli.offline.facts_commands import reference_of
    from ofp_platform.cli.offline.training_set import TrainingSet, training_intent
    from ofp_platform.offline.labels.label_store import LabelStore
    from ofp_platform.offline.requests.replay_resolution import data_end
    from ofp_platform.registry.models import FieldType
    from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, intent_wire
    from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
    from ofp_platform.vocabulary.times import parse_duration

    try:
        maturity_seconds = parse_duration(maturity) // 1_000_000
    except ValueError as error:
        raise CommandRefused(f"--maturity: {error}") from None
    with open_build_context(resolve(home, profile)) as (plane, build_context):
        registry, pins = plane.known_registry(), plane.profile.context_pins
        types = list(registry.pack.events)
        if event_type is None and len(types) > 1:
            raise CommandRefused(f"--type: say which events are the rows; the pack has {', '.join(types)}")
        if event_type is not None and event_type not in types:
            raise CommandRefused(f"--type: the pack knows no {event_type}; it has {', '.join(types)}")
        row_type = event_type or types[0]
        ends = plane.log.ends()
        if not any(plane.log.ordinal_lag(ends.model_copy(update={"partitions": ()})).values()):
            raise CommandRefused(f"the log {plane.log.stream_name} is empty: append events first")
        end = data_end(ReplayBasis.up_to(ends), build_context.stream_records)
        known_until = LabelStore(plane.pool, pins).known_until(label, end)
        if known_until is None:
            raise CommandRefused(
                f"no assertion of type {label} is known by the end of the data: append labels first (`ofp labels append FILE`)"
            )
        policy_id, _, revision = policy.partition(":")
        if revision and not revision.isdecimal():
            raise CommandRefused(f"--policy: {revision!r} is no revision; write ID:REVISION, as in fraud_training:1")
        training_set = TrainingSet(
            policy=build_context.policies.reference(policy_id, int(revision) if revision else None),
            name=name,
            event_type=row_type,
            as_of_basis=AsOfBasis.INGEST_TIME,
            payload_fields=tuple(
                field for field, kind in registry.pack.events[row_type].fields.items() if kind is FieldType.INTEGER
            ),
            label_type=label,
            maturity_seconds=maturity_seconds,
            submitted_by="ofp-cli",
        )
        intent = training_intent(training_set, registry, pins, ends, reference_of(plane.profile), known_until)
    typer.echo(readable_json(intent_wire(intent)))


@app.command(short_help="Resolve an intent without building anything.")
def check(intent: IntentFile, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Say what an intent would be built from: offsets, pack, labels, anchors. Exit code 1 and the field at fault otherwise."""
    from ofp_platform.offline.labels.label_store import LabelStore
    from ofp_platform.offline.requests.code_release import code_release_id
    from ofp_platform.offline.requests.intent_file import load_intent_file
    from ofp_platform.offline.requests.parity_policy import demand_anchors
    from ofp_platform.offline.requests.policies import policies_of
    from ofp_platform.offline.requests.resolver import BuildSources
    from ofp_platform.offline.requests.resolver import resolve as resolve_intent

    checked_intent = load_intent_file(intent)
    with resolve(home, profile).open_plane("offline") as plane:
        next_sequences = LabelStore.next_sequences(plane.pool)
        sources = BuildSources.of(
            plane.pool,
            plane.log,
            plane.objects,
            next_sequences,
            plane.profile.policy_rev,
            policies_of(plane.profile),
            plane.known_context_log(),
        )
        plan = resolve_intent(checked_intent, sources, code_release_id())
    demand_anchors(plan)
    print_facts(plan, _plan_lines(plan), as_json=json)


@app.command(short_help="Submit an intent.")
def submit(
    intent: IntentFile,
    build: Annotated[bool, typer.Option("--build", help="Build it here and now; exit code 1 unless it ends DONE.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Queue an intent for the builder. The same request is one run, however often it is submitted."""
    from ofp_platform.offline.requests.intent_file import load_intent_file

    checked_intent = load_intent_file(intent)
    environment = resolve(home, profile)
    if not build:
        with _ledger(environment, environment.load_profile()) as ledger:
            _tell(ledger.submit(checked_intent), json)
        return
    from rich.console import Console

    from ofp_platform.cli.offline.build_commands import build_run
    from ofp_platform.cli.offline.build_context import open_build_context

    with open_build_context(environment) as (_, build_context):
        run = build_run(build_context, build_context.ledger.submit(checked_intent).run_key, Console(stderr=True))
    _tell(run, json)
    if run.state.value != "DONE":
        raise typer.Exit(1)


@app.command("list", short_help="List the newest runs.")
def show_list(
    state: Annotated[
        str | None,
        typer.Option(
            "--state", help="State of the runs to list: QUEUED, RUNNING, DONE, FAILED or PUBLISH_PENDING.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of runs to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """The newest runs, newest first: key, state, when it was submitted, and why it failed."""
    from ofp_platform.vocabulary.offline.build_run import RunState

    if state is not None and state not in list(RunState):
        raise CommandRefused(f"there is no state {state!r}; there are {', '.join(RunState)}")
    with _ledger(resolve(home)) as ledger:
        runs = list(ledger.runs(None if state is None else RunState(state), limit=limit))
    print_facts(runs, (line for run in runs for line in list_lines(run)), as_json=json)


@app.command(short_help="Show one run with its receipts.")
def show(run: RunKey, json: AsJson = False, home: Home = None) -> None:
    """Show a request: its intent, its state, why it failed, and the receipt of each stage."""
    with _ledger(resolve(home)) as ledger:
        build_run = ledger.show(run)
        receipts = ledger.receipts(build_run.run_key)
    facts = {**build_run.wire(), "receipts": [receipt.model_dump(mode="json") for receipt in receipts]}
    print_facts(facts, _run_lines(build_run, receipts), as_json=json)


def _run_lines(build_run: BuildRun, receipts: Sequence[BuildReceipt]) -> Iterator[str]:
    yield line_of(build_run)
    attempts = f"attempts {build_run.attempts} of {build_run.attempt_limit}"
    if build_run.publish_only:
        attempts += f", of publication {build_run.publish_attempts} of {build_run.publish_attempt_limit}"
    yield f"  {attempts}; submitted {build_run.submitted_at_utc}, changed {build_run.changed_at_utc}"
    for line in [] if build_run.plan is None else _plan_lines(build_run.plan):
        yield f"  {line}"
    for name, value in sorted((build_run.outcome or {}).items()):
        yield f"  {name} {value if isinstance(value, str | int) else readable_json(value, 2, len(name) + 1)}"
    for receipt in receipts:
        engine = f", engine {receipt.content['engine']}" if "engine" in receipt.content else ""
        yield f"  receipt of {receipt.stage}, attempt {receipt.attempt}{engine}: {receipt.digest}"


@app.command(short_help="Cancel a run, also a running one.")
def cancel(
    run: RunKey,
    reason: Annotated[str, typer.Option("--reason", help="Reason, kept with the run.")] = "",
    actor: ActorOrUser = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """End a run that waits, runs or is to be published, as FAILED / CANCELLED; `ofp intent retry` gives it new attempts.

    Nothing of it can be published from then on; its builder stops within seconds and removes its files. A run that failed stays
    as it is; exit code 1 for one that is DONE.
    """
    with _ledger(resolve(home)) as ledger:
        build_run = ledger.cancel(ledger.show(run).run_key, actor_or_user(actor), reason)
    _tell(build_run, json)
    if build_run.state.value == "DONE":
        raise CommandRefused("the run is DONE: what it published stays")


@app.command(short_help="Wait until a run ends.")
def wait(
    run: RunKey,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; default: no bound.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Wait until a run is built, or failed. Its state and the stages that end meanwhile are told on stderr.

    Exit code 0 if it is DONE, 1 if it failed, 3 if the time is over before.
    """
    import time

    from ofp_platform.cli.offline.run_wait import wait_for

    deadline = None if timeout is None else time.monotonic() + timeout
    with _ledger(resolve(home)) as ledger:
        build_run = wait_for(ledger, run, deadline, lambda words: typer.echo(words, err=True))
    _tell(build_run, json)
    if build_run.state.value != "DONE":
        raise typer.Exit(1 if build_run.state.value == "FAILED" else 3)


@app.command(short_help="Retry a failed run.")
def retry(
    run: RunKey,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build again even if only publication is left.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Give a failed run new attempts, once the cause is removed. A run that did not fail stays as it is."""
    environment = resolve(home)
    with _ledger(environment, environment.load_profile()) as ledger:
        _tell(ledger.reopen(ledger.show(run).run_key, rebuild=rebuild), json)


def _tell(run: BuildRun, as_json: bool) -> None:
    print_facts(run, [line_of(run)], as_json=as_json)


def _plan_lines(plan: BuildPlan) -> Iterator[str]:
    yield f"request {plan.request_id}"
    if plan.scope is not None:
        yield f"dataset identity {plan.dataset_identity}"
    for span, cut_over in zip(plan.replay_basis.partitions, plan.cut_over, strict=True):
        offsets = f"from {span.start or 'its start'} to {span.next}"
        yield f"replay {span.partition_id} {offsets}, out of the archive up to {cut_over.offset or 'its start'}"
    if plan.feature_pack is not None:
        yield f"pack {plan.feature_pack.pack_id} revision {plan.feature_pack.revision}, digest {plan.feature_pack.digest}"
    if plan.graph_version is not None:
        yield f"identities by version {plan.graph_version.graph_version} of the graph in {plan.graph_version.stream_name}"
    if plan.label_basis is not None:
        yield f"label {plan.label_basis.label_type} as of {plan.label_basis.as_of_utc}"
    yield f"parity anchors {len(plan.parity_anchors)}"
    yield f"policy {plan.policy.policy_id} revision {plan.policy.revision}, digest {plan.policy.digest}"
