"""What must hold of a run whose parts were killed over and over, once at rest: nothing lost, nothing twice, whole chains."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from psycopg import Connection

from ofp_platform.audit.database_view import database_view
from ofp_platform.audit.verification import verify_log
from ofp_platform.cli.offline.loop_sums import sum_up_loop
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.wanted_actions import wanted_actions
from ofp_platform.log.port import EventLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.bundle_events import list_bundle_events
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.position import place
from ofp_platform_tests.torture.action_kills.provider import Provider
from ofp_platform_tests.torture.bundle_races.line import faults_of
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.streamer import check_ingress
from ofp_platform_tests.torture.loop_kills.parts import act, decide, look_into, prove, send, take_in
from ofp_platform_tests.torture.loop_kills.site import Site

_ALL = 1_000_000
_REST_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_PAGE = 5_000
_DECISIONS = "SELECT content FROM ofp.decision_record WHERE pins_digest = %s"
_INTENTS = """
    SELECT i.idempotency_key, o.outcome, i.content::jsonb -> 'target' ? 'webhook'
    FROM ofp.action_intent AS i LEFT JOIN ofp.action_outcome AS o USING (intent_id) WHERE i.pins_digest = %s"""
_HOLDS = "SELECT idempotency_key FROM ofp.account_hold WHERE pins_digest = %s"
_TRIGGERS = "SELECT source_ref FROM ofp.case_entry WHERE pins_digest = %s AND entry_type = 'TRIGGERED'"
_ACCEPTED = """
    SELECT content::jsonb ->> 'assertion_id' FROM ofp.case_entry WHERE pins_digest = %s AND entry_type = 'LABEL_ACCEPTED'"""
_LABELS = "SELECT assertion_id FROM ofp.label_assertion WHERE pins_digest = %s"
_APPLIED = "SELECT coalesce(sum(records), 0)::bigint FROM ofp.projection_partition WHERE projection_id = %s"


def bring_to_rest(site: Site) -> None:
    """Let each part do all that is left, unkilled, until the sums of the loop balance or time is up: then the check says why."""
    deadline = time.monotonic() + _REST_SECONDS
    send(site, _ALL)
    while True:
        take_in(site, 0)
        decide(site, 0)
        act(site, _ALL)
        look_into(site)
        prove(site, 0)
        with _opened(site) as plane:
            balances = not sum_up_loop(plane).differences
        if balances or time.monotonic() > deadline:
            return
        time.sleep(_LOOK_SECONDS)  # the service stores what it served on its own time


def check_loop(site: Site, provider: Provider) -> Checked:
    """Hold log, decisions, streams, books, cases, labels, bundles and the audit log of a run against one another."""
    checked = Checked()
    name, digest = site.profile.stream_name, pins_digest(site.profile.context_pins)
    check_ingress(site.profile, site.dsn, checked, is_done=True)
    with _opened(site) as plane, plane.pool.connection() as connection:
        in_log = sum(1 for _ in _ids(plane.log))
        applied = connection.execute(_APPLIED, (plane.ensure_live().projection_id,)).fetchall()
        checked.compare("places", applied, [(in_log,)], name)
        checked.compare("sums", list(sum_up_loop(plane).differences), [], name)
        records = [DecisionRecord.model_validate_json(text) for (text,) in connection.execute(_DECISIONS, (digest,)).fetchall()]
        _check_decisions(plane, records, checked)
        _check_actions(site, connection, records, provider, checked)
        told = Counter(_ids(plane.decisions_log()))
        intents = connection.execute(_INTENTS, (digest,)).fetchall()
        checked.compare("streams", set(told.values()) <= {1}, True, name)
        checked.compare("streams", len(told), len(records) + 2 * len(intents), name)
        _check_cases(connection, digest, records, checked)
        steps = [step.event for step in reversed(list_bundle_events(connection, site.profile.context_pins, _PAGE))]
        checked.compare("bundles", faults_of(steps), [], name)
        on_control = Counter(_ids(plane.control_log()))
        for step in steps:
            checked.compare("bundles", on_control[step.message_id], 1, step.sequence)
    with _opened(site) as plane, database_view(plane.pool, plane.objects) as view:
        verification = verify_log(view)
        checked.compare("audit", ([str(fault) for fault in verification.faults], verification.quarantined), ([], ()), name)
        checked.compare("audit", verification.proven_leaves, verification.leaf_count, name)
    return checked


def _check_decisions(plane: Plane, records: list[DecisionRecord], checked: Checked) -> None:
    """Each event of the type that may be decided on has one decision."""
    decided = Counter(record.event_id for record in records)
    for event_id in {event.event_id for page in _reader(plane).pages() for event in page.events} | decided.keys():
        checked.compare("decisions", decided[event_id], 1, event_id)


def _check_actions(
    site: Site, connection: Connection[Any], records: list[DecisionRecord], provider: Provider, checked: Checked
) -> None:
    """Each intent that a decision wants is there, and was done once, by the books of whoever does it."""
    digest, deciding = pins_digest(site.profile.context_pins), site.profile.deciding
    assert deciding is not None
    intents = connection.execute(_INTENTS, (digest,)).fetchall()
    holds = Counter(key for (key,) in connection.execute(_HOLDS, (digest,)).fetchall())
    wanted = {intent.idempotency_key for intent in wanted_actions(records, deciding.actions)}
    checked.compare("intents", {key for key, _, _ in intents}, wanted, site.profile.stream_name)
    for key, outcome, is_outside in intents:
        checked.compare("actions", (outcome, provider.done[key] if is_outside else holds[key]), ("EXECUTED", 1), key)
    outside = {key for key, _, is_outside in intents if is_outside}
    inside = {key for key, _, is_outside in intents if not is_outside}
    checked.compare("intents", (set(provider.done), set(holds)), (outside, inside), site.profile.stream_name)


def _check_cases(connection: Connection[Any], digest: str, records: list[DecisionRecord], checked: Checked) -> None:
    """Each decision that was not approved opened a case once; each label that was accepted is in the label store, once."""
    triggers = Counter(ref for (ref,) in connection.execute(_TRIGGERS, (digest,)).fetchall() if ref.startswith("decision/"))
    escalated = {f"decision/{record.decision_id}" for record in records if record.outcome.value != "approve"}
    for ref in escalated | triggers.keys():
        checked.compare("cases", triggers[ref], 1 if ref in escalated else 0, ref)
    accepted = Counter(one for (one,) in connection.execute(_ACCEPTED, (digest,)).fetchall())
    stored = Counter(one for (one,) in connection.execute(_LABELS, (digest,)).fetchall())
    for name in accepted.keys() | stored.keys():
        checked.compare("labels", (accepted[name], stored[name]), (1, 1), name)


def _ids(log: EventLog) -> Iterator[str]:
    """The ids of all that stands in a stream, as often as they do."""
    for part in log.ends().partitions:
        at = log.position_kind.start(part.partition_id)
        while place(at) < place(part):
            batch = log.read(part.partition_id, at, _PAGE)
            yield from batch.event_ids
            at = batch.next


def _opened(site: Site) -> Plane:
    return Plane.open(site.profile, site.dsn, max_connections=3)


def _reader(plane: Plane) -> EventReader:
    profile = plane.profile
    assert profile.deciding is not None
    return EventReader(plane.log, profile.context_pins, profile.deciding.event_type, profile.clock_skew_us)


def plant_loss_and_double(site: Site, provider: Provider) -> None:
    """Remove a decision from the table, and do an action twice by the books, as defects would."""
    digest = pins_digest(site.profile.context_pins)
    with _opened(site) as plane, plane.pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute(
            "DELETE FROM ofp.decision_record WHERE decision_id = (SELECT max(decision_id) FROM ofp.decision_record"
            " WHERE pins_digest = %s AND content::jsonb ->> 'outcome' = 'approve')",
            (digest,),
        )
        connection.execute("ALTER TABLE ofp.decision_record ENABLE TRIGGER USER")
    provider.done[min(provider.done)] += 1
