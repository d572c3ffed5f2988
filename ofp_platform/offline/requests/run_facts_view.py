"""The facts of a run: published once under a reference, and read only by it, and only where every check has passed."""

from __future__ import annotations

from pydantic import ValidationError

from ofp_platform.log.port import EventLog
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.published_packs import pack_digests
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.run_facts import CheckEvidence, CheckStatus, RunFacts
from ofp_platform.vocabulary.profile import Profile


class RunFactsConflict(Exception):
    """Other facts are published under that reference already."""


def examine_run(pool: Pool, log: EventLog, profile: Profile, pack: PinnedPack, reference: str) -> RunFacts:
    """Examine a run as its scenario runner would on handing it over: the versions it pinned, and the result of each check.

    The digests are of the evidence: the pack as published, the configuration, the heads of the stream.
    """
    with answering(), pool.connection() as connection:
        published_digests = pack_digests(connection, pack.pack_id, pack.revision)
    ends = log.ends()
    config = {
        "allowed_lateness_us": profile.allowed_lateness_us,
        "clock_skew_us": profile.clock_skew_us,
        "run_config_digest": profile.run_config_digest,
    }
    checks = {
        "feature_pack_published": (published_digests == [pack.digest], published_digests),
        "run_config_pinned": (log.stream_name == profile.stream_name, {**config, "stream_name": log.stream_name}),
        "stream_readable": (bool(ends.partitions), ends.model_dump(mode="json")),
    }
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
                check=name, status=CheckStatus.PASS if is_passed else CheckStatus.FAIL, evidence_digest=digest_of(evidence)
            )
            for name, (is_passed, evidence) in sorted(checks.items())
        ),
    )


def publish_run_facts(pool: Pool, facts: RunFacts) -> str:
    """Publish facts in place of the scenario runner. Idempotent; returns the digest of the facts.

    Raises:
        RunFactsConflict: the reference names other facts; what a reference names never changes.
        BuildRefused: STORE_UNAVAILABLE.
    """
    content = canonical_bytes(facts.wire()).decode("utf-8")
    with answering(), pool.connection() as connection:
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
            PASS_EVIDENCE_MISSING: a required check did not pass, or nobody says that it did; STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        row = connection.execute("SELECT digest, content FROM ofp.run_facts WHERE reference = %s", (reference,)).fetchone()
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
    return facts


def _unavailable(field: str, message: str) -> BuildRefused:
    return BuildRefused(BuildReason.RUN_FACTS_UNAVAILABLE, message, field)
