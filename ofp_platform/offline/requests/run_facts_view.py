"""The facts of a run: published once under a reference, and read only by it, and only where every check has passed."""

from __future__ import annotations

from typing import Any

import orjson
from psycopg import Connection
from pydantic import ValidationError

from ofp_platform.log.port import EventLog, LogError, LogUnavailable
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.evidence import keep_evidence, read_evidence
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.published_packs import pack_digests
from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.run_facts import CheckEvidence, CheckStatus, RunCheckEvidence, RunFacts
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import READABLE_STATES, RunPlan, RunStatus

_SERVED_CONFIGS = """
    SELECT DISTINCT run_config_digest FROM ofp.projection
    WHERE (stream_name, pins_digest) = (%s, %s) AND status = 'live' ORDER BY 1"""


class RunFactsConflict(Exception):
    """Other facts are published under that reference already."""


def examine_run(pool: Pool, log: EventLog, profile: Profile, pack: PinnedPack, reference: str) -> RunFacts:
    """Examine a run as its scenario runner would on handing it over: the versions it pinned, and the result of each check.

    The evidence of each is stored under its digest: the digests under which the pack is published, the configuration with that of
    the projection that serves the run, and what can be read at both ends of each partition.
    """
    with answering(), pool.connection() as connection:
        published_digests = pack_digests(connection, pack.pack_id, pack.revision)
        served_configs = connection.execute(_SERVED_CONFIGS, (log.stream_name, pins_digest(profile.context_pins))).fetchall()
    config = {
        "allowed_lateness_us": profile.allowed_lateness_us,
        "clock_skew_us": profile.clock_skew_us,
        "run_config_digest": profile.run_config_digest,
        "served_with": [digest for (digest,) in served_configs],
        "stream_name": log.stream_name,
    }
    spans = _readable_spans(log)
    checks: dict[str, tuple[bool, object]] = {
        "feature_pack_published": (published_digests == [pack.digest], published_digests),
        "run_config_pinned": (all(digest == profile.run_config_digest for (digest,) in served_configs), config),
        "stream_readable": (bool(spans) and all(span["problem"] == "" for span in spans), spans),
    }
    evidence = {
        name: canonical_bytes(
            RunCheckEvidence.model_validate(
                {
                    "check": name,
                    "context_pins": profile.context_pins,
                    "looked_at": looked_at,
                    "status": CheckStatus.PASS if is_passed else CheckStatus.FAIL,
                }
            ).wire()
        )
        for name, (is_passed, looked_at) in sorted(checks.items())
    }
    with answering(), pool.connection() as connection:
        keep_evidence(connection, evidence.values())
    return RunFacts(
        reference=reference,
        context_pins=profile.context_pins,
        stream_name=log.stream_name,
        feature_pack=pack,
        run_config_digest=profile.run_config_digest,
        clock_skew_us=profile.clock_skew_us,
        allowed_lateness_us=profile.allowed_lateness_us,
        evidence=tuple(
            CheckEvidence(
                check=name,
                status=CheckStatus.PASS if checks[name][0] else CheckStatus.FAIL,
                evidence_digest=sha256_hex(content),
            )
            for name, content in evidence.items()
        ),
    )


def _readable_spans(log: EventLog) -> list[dict[str, object]]:
    """The words of the log about each partition, and the fault in them where reading does not bear them out."""
    floor = log.retention_floor().by_partition()
    spans: list[dict[str, object]] = []
    for end in log.ends().partitions:
        problem, start = "", floor.get(end.partition_id)
        try:
            batch = log.read(end.partition_id, start, 1)
            if start is not None and start != end and batch.next == start:
                problem = "records are promised, and none can be read"
        except LogUnavailable:
            raise
        except LogError as error:
            problem = str(error)
        wire_start = None if start is None else start.model_dump(mode="json")
        spans.append({"end": end.model_dump(mode="json"), "problem": problem, "start": wire_start})
    return spans


def publish_run_facts(pool: Pool, facts: RunFacts) -> str:
    """Publish facts in place of the scenario runner. Idempotent; returns the digest of the facts.

    Raises:
        RunFactsConflict: the reference names other facts; what a reference names never changes.
        BuildRefused: STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        return publish_run_facts_with(connection, facts)


def publish_run_facts_with(connection: Connection[Any], facts: RunFacts) -> str:
    """As `publish_run_facts`, in the caller's transaction.

    Raises:
        RunFactsConflict: see there.
    """
    content = canonical_bytes(facts.wire()).decode("utf-8")
    connection.execute(
        "INSERT INTO ofp.run_facts (reference, digest, content) VALUES (%s, %s, %s) ON CONFLICT (reference) DO NOTHING",
        (facts.reference, facts.digest, content),
    )
    row = connection.execute("SELECT digest FROM ofp.run_facts WHERE reference = %s", (facts.reference,)).fetchone()
    if row is None or row[0] != facts.digest:
        raise RunFactsConflict(
            f"the reference {facts.reference!r} names other facts already; publish these under another reference"
        )
    return facts.digest


def load_run_facts(
    pool: Pool,
    reference: str,
    context_pins: ContextPins,
    stream_name: str,
) -> RunFacts:
    """The facts under a reference, if they are of this run and stream and every required check passed.

    Raises:
        BuildRefused: RUN_FACTS_UNAVAILABLE: an unknown reference, facts of another run or stream, damaged facts;
            PASS_EVIDENCE_MISSING: a required check did not pass, or nobody says that it did;
            EVIDENCE_UNRESOLVED: the evidence of a check is not stored, or says something else; STORE_UNAVAILABLE.

    The facts of a run that has a scenario are read while the run is READY or has ended, and only those that READY names.
    """
    with answering(), pool.connection() as connection:
        row = connection.execute("SELECT digest, content FROM ofp.run_facts WHERE reference = %s", (reference,)).fetchone()
        status = read_run_status(connection, context_pins)
    if row is None:
        raise _unavailable("run_facts_ref", f"no run facts are published under {reference!r}")
    digest, content = row
    try:
        facts = RunFacts.model_validate_json(content)
    except ValidationError as error:
        raise _unavailable("run_facts_ref", f"what is stored under {reference!r} is no run facts object: {error}") from None
    if sha256_hex(content.encode("utf-8")) != digest or facts.digest != digest or facts.reference != reference:
        raise _unavailable("run_facts_ref", f"the run facts stored under {reference!r} do not have the digest {digest}")
    if facts.context_pins != context_pins:
        raise _unavailable("context_pins", f"the facts under {reference!r} are of run {facts.context_pins.wire()}")
    if facts.stream_name != stream_name:
        raise _unavailable("stream_name", f"the facts under {reference!r} are of stream {facts.stream_name!r}")
    if missing := facts.without_pass():
        raise BuildRefused(
            BuildReason.PASS_EVIDENCE_MISSING,
            f"the facts under {reference!r} hold no PASS of {', '.join(missing)}: without it the run's data is not read",
            "run_facts_ref",
        )
    _check_evidence(pool, facts)
    _check_scenario(pool, facts, status)
    return facts


def _check_scenario(pool: Pool, facts: RunFacts, status: RunStatus | None) -> None:
    """Check that READY names these facts, and that the plan that they name says what they say."""
    about, scenario = f"the facts under {facts.reference!r}", facts.scenario
    if status is None and scenario is None:
        return  # of a run that nobody asked the scenario runner for
    if status is None or status.state not in READABLE_STATES:
        state = "was never READY" if status is None else f"is {status.state}"
        raise _unavailable("run_facts_ref", f"the run {state}: nothing is built from it (`ofp run show`)")
    if scenario is None or facts.digest != status.facts_digest:
        raise _unavailable("run_facts_ref", f"READY_DRIFT: READY names {status.facts_reference!r}, and {about} are others")
    with answering(), pool.connection() as connection:
        content = read_evidence(connection, [scenario.plan_digest]).get(scenario.plan_digest)
    if content is None or sha256_hex(content.encode()) != scenario.plan_digest:
        raise _unavailable("run_facts_ref", f"FACTS_VIEW_DRIFT: {about} name plan {scenario.plan_digest}, which is not stored")
    plan = RunPlan.model_validate_json(content)
    meaning, request = plan.meaning, plan.request
    said = {
        "scenario_run_id": (plan.scenario_run_id, scenario.scenario_run_id),
        "world": (request.world, scenario.world),
        "manifest_digest": (meaning.manifest_digest, scenario.manifest_digest),
        "outputs": (meaning.outputs, scenario.outputs),
        "traffic_delivery_mode": (meaning.mode, scenario.traffic_delivery_mode),
        "class_map_digest": (meaning.class_map_digest, scenario.class_map_digest),
        "context_stream": (meaning.context_stream, scenario.context_stream),
        "feature_pack": (meaning.feature_pack, facts.feature_pack),
        "run_config_digest": (meaning.run_config_digest, facts.run_config_digest),
        "stream_name": (meaning.stream_name, facts.stream_name),
    }
    if drifted := [name for name, (planned, in_facts) in said.items() if planned != in_facts]:
        raise _unavailable("run_facts_ref", f"FACTS_VIEW_DRIFT: {about} differ from their plan in {', '.join(drifted)}")


def _check_evidence(pool: Pool, facts: RunFacts) -> None:
    """Check that the evidence of every check is stored and says what the facts say.

    Raises:
        BuildRefused: EVIDENCE_UNRESOLVED; STORE_UNAVAILABLE.
    """
    digests = [item.evidence_digest for item in facts.evidence]
    with answering(), pool.connection() as connection:
        contents = read_evidence(connection, digests)
    for item in facts.evidence:
        content = contents.get(item.evidence_digest)
        if content is None:
            problem = "is not stored"
        elif sha256_hex(content.encode("utf-8")) != item.evidence_digest:
            problem = "is stored with another content"
        else:
            said = orjson.loads(content)
            claim = {"check": item.check, "context_pins": facts.context_pins.wire(), "status": item.status.value}
            if isinstance(said, dict) and {name: said.get(name) for name in claim} == claim:
                continue
            problem = "says something else"
        raise BuildRefused(
            BuildReason.EVIDENCE_UNRESOLVED,
            f"the evidence {item.evidence_digest} of check {item.check} in the facts under {facts.reference!r} {problem}:"
            " examine the run again (`ofp facts publish REFERENCE`, under another reference)",
            "run_facts_ref",
        )


def _unavailable(field: str, message: str) -> BuildRefused:
    return BuildRefused(BuildReason.RUN_FACTS_UNAVAILABLE, message, field)
