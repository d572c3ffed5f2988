"""Asking for a build from Dagster's launchpad: the run config is the intent."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ofp_platform.api.build_examples import intent_example
from ofp_platform.offline.requests.intent_file import parse_intent, read_intent
from ofp_platform.orchestration.partitions import BUILD_REQUEST, request_key_of
from ofp_platform.orchestration.resources import BuildContextResource
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun


@dg.op(
    config_schema={
        "intent": dg.Field(
            dg.Any,
            description="The intent by the contract ofs_build_intent_v0: an object, or a text in JSON or YAML.",
        )
    },
    description="Checks the intent, queues it in the run ledger, and adds its partition.",
)
def submit_intent(context: dg.OpExecutionContext, builds: dg.ResourceParam[BuildContextResource]) -> None:
    """Submit one intent; the sensor `build_intents` asks for the build."""
    given_intent: Any = context.op_config["intent"]
    try:
        if isinstance(given_intent, Mapping):
            intent = parse_intent(given_intent)
        elif isinstance(given_intent, str):
            intent = read_intent(given_intent)
        else:
            raise dg.Failure(f"an intent is an object, or a text in JSON or YAML; this is a {type(given_intent).__name__}")
        with builds.open() as build_context:
            run = build_context.ledger.submit(intent)
    except BuildRefused as refused:
        about = {"reason": refused.reason.value, "field": refused.field or "none"}
        raise dg.Failure(str(refused), metadata=about, allow_retries=False) from refused
    add_request(context.instance, run)
    context.log.info("request %s is %s, attempt %d of %d", run.run_key, run.state.value, run.attempts, run.attempt_limit)
    context.add_output_metadata({"request_id": run.run_key, "state": run.state.value, "intent": intent.intent})


def add_request(instance: dg.DagsterInstance, run: BuildRun) -> None:
    """The partition of a request, if it is not there yet."""
    name = str(BUILD_REQUEST.name)
    key = request_key_of(run)
    if not instance.has_dynamic_partition(name, key):
        instance.add_dynamic_partitions(name, [key])


@dg.job(
    name="submit_build",
    description=(
        "Queues the build intent that is the run config, under `ops: submit_intent: config: intent:`; the launchpad has an"
        " example. The same request is one"
        " run of the ledger, however often it is submitted."
    ),
    tags={"plane": "offline"},
    config={"ops": {"submit_intent": {"config": {"intent": intent_example()}}}},
)
def submit_build_job() -> None:
    """Submit an intent."""
    submit_intent()
