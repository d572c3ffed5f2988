"""Sensors of the offline plane: runs of the ledger that wait for a builder, and runs that ended."""

import json
import time
from collections.abc import Iterable, Sequence

import dagster as dg

from ofp_platform.log.governance_log import append_facts
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.run_reconciliation import Ending, finished_since, governance_facts, reconcile
from ofp_platform.offline.runs.waiting_runs import runs_that_may_pass, waiting_runs
from ofp_platform.orchestration.offline.build_assets import ASSETS, BUILD_PLAN, assets_of, build_dataset_job
from ofp_platform.orchestration.partitions import BUILD_REQUEST, request_key_of
from ofp_platform.orchestration.resources import BuildContextResource
from ofp_platform.orchestration.run_liveness import TICK_SECONDS, UNFINISHED, goes_on
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

ATTEMPT = "ofp/build_attempt"
RUNS_PER_ATTEMPT = 3
MOST_AT_ONCE = 50
SETTLED_SECONDS = 2.0
CLAIM_SECONDS = 60.0
"""From asking for a run until it has claimed its build. One that has not by then, and has started, died."""
SHOWN_SECONDS = 3_600.0
"""A run that only shows a build holds nothing: behind that it is taken for dead."""
FIRST_PAUSE_SECONDS = 30.0
"""Before a store that did not answer is tried again; doubled with every attempt."""


@dg.sensor(
    job=build_dataset_job,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a build of every request of the run ledger that waits, has to be published, or lost its builder.",
    tags={"plane": "offline"},
)
def build_intents(
    context: dg.SensorEvaluationContext, builds: dg.ResourceParam[BuildContextResource]
) -> dg.SensorResult | dg.SkipReason:
    """One run for each attempt. A run that ends before it has claimed its attempt is followed by another, a few times."""
    with builds.open() as build_context:
        _retry_what_may_pass(build_context)
        requests, resting = _requests(context.instance, filter(_pause_is_over, waiting_runs(build_context.pool)))
    if not requests:
        return dg.SkipReason(f"{resting} builds are under way or need help" if resting else "no request waits")
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=_partitions(context.instance, [request.partition_key or "" for request in requests]),
    )


@dg.sensor(
    job=build_dataset_job,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Records the governance facts and the reconciliation of every build that ended, whoever built it, and asks for a run that"
        " shows the receipts of a build that was made elsewhere."
    ),
    tags={"plane": "offline"},
)
def build_outcomes(
    context: dg.SensorEvaluationContext, builds: dg.ResourceParam[BuildContextResource]
) -> dg.SensorResult | dg.SkipReason:
    """In the order in which runs ended; one whose reconciliation cannot be written is reported when it can."""
    ending = Ending(**json.loads(context.cursor)) if context.cursor else Ending()
    ended_runs: list[BuildRun] = []
    with builds.open() as build_context:
        for place, run in finished_since(build_context.pool, ending, settled_seconds=SETTLED_SECONDS):
            try:
                path = reconcile(build_context.ledger, build_context.objects, run)
            except ObjectStoreUnavailable as error:
                context.log.warning("the reconciliation of %s waits: %s", run.run_key, error)
                break
            facts = governance_facts(run, path)
            for fact in facts:
                context.log.info("governance fact: %s", json.dumps(fact.wire(), sort_keys=True))
            # where it fails, so does the tick, and this run is reported again
            append_facts(build_context.pool, facts, run.intent.context_pins)
            ended_runs.append(run)
            ending = place
    if not ended_runs:
        return dg.SkipReason("no build ended")
    _end_runs_of_cancelled(context, ended_runs)
    unseen = [run for run in ended_runs if run.state is RunState.DONE and not _is_shown(context.instance, run)]
    refused_keys = {request_key_of(run) for run in ended_runs if _began_nothing(run)}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{run.run_key}-shown",
                partition_key=request_key_of(run),
                tags={"ofp/shows": run.run_key},
                asset_selection=assets_of(run),
            )
            for run in unseen
        ],
        dynamic_partitions_requests=[
            *_partitions(context.instance, [key for key in map(request_key_of, ended_runs) if key not in refused_keys]),
            *_without(context.instance, refused_keys),
        ],
        cursor=json.dumps({"changed_at_utc": ending.changed_at_utc, "run_key": ending.run_key}),
        skip_reason=None if unseen else f"reported: {len(ended_runs)} builds ended",
    )


def _end_runs_of_cancelled(context: dg.SensorEvaluationContext, ended_runs: Sequence[BuildRun]) -> None:
    """Terminate Dagster's runs of builds that were cancelled; most have seen it by now and ended."""
    for run in ended_runs:
        if run.refusal is None or run.refusal.reason is not BuildReason.CANCELLED:
            continue
        unfinished_runs = dg.RunsFilter(
            job_name=build_dataset_job.name, statuses=UNFINISHED, tags={"dagster/partition": request_key_of(run)}
        )
        for record in context.instance.get_run_records(unfinished_runs, limit=50):
            context.log.info("terminating %s: %s", record.dagster_run.run_id, run.refusal.message)
            context.instance.run_coordinator.cancel_run(record.dagster_run.run_id)


def _requests(instance: dg.DagsterInstance, waiting: Iterable[BuildRun]) -> tuple[list[dg.RunRequest], int]:
    """The runs to ask for, of the first that wait, and how many of those are under way or need help.

    At most `MOST_AT_ONCE` are asked for or under way. One that needs help takes no place: it may wait for good.
    """
    requests: list[dg.RunRequest] = []
    resting = under_way_count = 0
    for run in waiting:
        if len(requests) + under_way_count >= MOST_AT_ONCE:
            break
        attempt = f"{run.run_key}-{run.attempts}-{run.publish_attempts}"
        earlier = instance.get_run_records(dg.RunsFilter(tags={ATTEMPT: attempt}))
        # nobody holds the lease: so it is among the waiting
        under_way = any(_may_claim(run_before) for run_before in earlier)
        under_way_count += under_way
        if len(earlier) >= RUNS_PER_ATTEMPT or under_way:
            resting += 1
            continue
        run_key = attempt if not earlier else f"{attempt}-{len(earlier)}"
        tags = {ATTEMPT: attempt, "ofp/intent": run.intent.intent, "ofp/ledger_state": run.state.value}
        requests.append(
            dg.RunRequest(run_key=run_key, partition_key=request_key_of(run), tags=tags, asset_selection=assets_of(run))
        )
    return requests, resting


def _may_claim(record: dg.RunRecord) -> bool:
    """Whether a run that does not hold the lease of its build yet may still take it."""
    age = time.time() - record.create_timestamp.timestamp()
    is_young = record.dagster_run.status in UNFINISHED and age < CLAIM_SECONDS
    return is_young or goes_on(record, is_held=False, now=time.time())


def _retry_what_may_pass(build_context: BuildContext) -> None:
    """Queue again what failed for a reason that may pass by itself, after a pause."""
    for run in runs_that_may_pass(build_context.pool):
        if _pause_is_over(run):
            build_context.ledger.retry(run.run_key)


def _pause_is_over(run: BuildRun) -> bool:
    """A run that the store turned away waits longer after each attempt; any other is built at once."""
    if run.refusal is None:
        return True
    pause = FIRST_PAUSE_SECONDS * (1 << max(run.attempts + run.publish_attempts - 1, 0))
    return time.time() >= parse_time(run.changed_at_utc) / MICROS_PER_SECOND + pause


def _partitions(instance: dg.DagsterInstance, keys: Sequence[str]) -> list[dg.AddDynamicPartitionsRequest]:
    name = str(BUILD_REQUEST.name)
    new = [key for key in dict.fromkeys(keys) if not instance.has_dynamic_partition(name, key)]
    return [BUILD_REQUEST.build_add_request(new)] if new else []


def _began_nothing(run: BuildRun) -> bool:
    """Whether a request was refused before anything was built of it, and is not tried again by itself."""
    return run.state is RunState.FAILED and run.plan is None and run.old_form is None and not run.retryable


def _without(instance: dg.DagsterInstance, keys: set[str]) -> list[dg.DeleteDynamicPartitionsRequest]:
    """Take back the partitions of requests of which nothing was built: an asset would stay red for them for good.

    Ledger, governance fact and the failed run say why; `ofp intent retry` makes a partition of the request again.
    """
    known_keys = [key for key in sorted(keys) if instance.has_dynamic_partition(str(BUILD_REQUEST.name), key)]
    return [BUILD_REQUEST.build_delete_request(known_keys)] if known_keys else []


def _is_shown(instance: dg.DagsterInstance, run: BuildRun) -> bool:
    """Whether a run of Dagster showed the request, or is about to."""
    unfinished_runs = dg.RunsFilter(
        job_name=build_dataset_job.name, statuses=UNFINISHED, tags={"dagster/partition": request_key_of(run)}
    )
    records = instance.get_run_records(unfinished_runs, limit=50)
    if any(goes_on(record, is_held=False, now=time.time() - SHOWN_SECONDS) for record in records):
        return True
    last = {"dataset_build": ASSETS["manifest"], "parity_rebuild": ASSETS["parity"], "forensic_rebuild": ASSETS["snapshot"]}
    records_filter = dg.AssetRecordsFilter(last.get(run.intent.intent, BUILD_PLAN), asset_partitions=[request_key_of(run)])
    return len(instance.fetch_materializations(records_filter, limit=1).records) > 0
