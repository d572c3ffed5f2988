"""A run is admitted, served and built from while control says so: by the facts that READY names, each with its evidence."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from ofp_platform.ingress.batches import BatchReceipt
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.offline.requests.run_facts_view import RunFactsConflict, load_run_facts, publish_run_facts
from ofp_platform.online.plane import NoControlStream, Plane
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.scenario import runner
from ofp_platform.scenario.ready_run import ready_run, world_of
from ofp_platform.scenario.runner import RunnerOutcome, RunRefused, ScenarioRunner
from ofp_platform.simulation.rings import RingSimulation
from ofp_platform.storage.evidence import read_evidence
from ofp_platform.storage.postgres import connect
from ofp_platform.storage.run_states import RunNotReady, list_run_status, read_run_status
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.run_facts import RunCheckEvidence, TrafficMode
from ofp_platform.vocabulary.scenario import RunState, message_id
from ofp_platform.world.makers import rings_world
from ofp_platform.world.world_rows import WorldFault
from ofp_platform.world.world_store import seal_world, write_world
from ofp_platform_tests.scenario.conftest import Site, moments


def control_records(plane: Plane) -> list[tuple[str, str, str]]:
    """Type, event id and facts of each message."""
    log = plane.control_log()
    [end] = log.ends().partitions
    batch = log.read(end.partition_id, log.retention_floor().by_partition()[end.partition_id], 100)
    envelopes = [batch.envelope(index) for index in range(len(batch))]
    return [(each.event_type, each.event_id, each.payload["facts_digest"]) for each in envelopes]


def outcome_of(receipt: BatchReceipt) -> tuple[AdmissionOutcome, QuarantineReason | None]:
    [outcome] = receipt.outcomes
    return outcome.outcome, outcome.reason


def test_a_world_becomes_a_run_that_is_admitted_served_built_from_and_ended(new_site: Callable[..., Site]) -> None:
    site = new_site()
    plane, pins = site.plane, site.plane.profile.context_pins
    assert outcome_of(site.admit("too-early")) == (AdmissionOutcome.QUARANTINE, QuarantineReason.RUN_NOT_ACTIVE)
    with pytest.raises(RunNotReady, match="nobody asked for it"):
        ready_run(plane)
    with pytest.raises(RunNotReady, match="is not READY"):
        plane.ensure_live()
    outcome = site.request()
    assert (outcome.problems, outcome.is_new, outcome.status.state) == ([], True, RunState.READY)
    names = [gate.check for gate in outcome.evidence]
    assert names == [
        *("feature_pack_published", "run_config_pinned", "run_pins", "stream_readable"),
        *("world_rows", "world_sealed", "world_times", "world_types"),
    ]
    run = ready_run(plane)
    assert run.plan.scenario_run_id == run.scenario.scenario_run_id == outcome.status.scenario_run_id
    assert run.scenario.outputs == ("links", "transfers")
    # each piece of evidence is there under its digest and says what it saw
    with plane.pool.connection() as connection:
        texts = read_evidence(connection, [gate.evidence_digest for gate in outcome.evidence])
    by_name = {}
    for gate in outcome.evidence:
        assert sha256_hex(texts[gate.evidence_digest].encode()) == gate.evidence_digest
        by_name[gate.check] = RunCheckEvidence.model_validate_json(texts[gate.evidence_digest]).looked_at
    manifest = world_of(plane, run).manifest
    assert {item.output: item.rows for item in by_name["world_rows"].outputs} == {  # type: ignore[union-attr]
        item.output: item.rows for item in manifest.outputs
    }
    types = by_name["world_types"].event_types  # type: ignore[union-attr]
    assert sum(types.values()) == manifest.rows
    assert set(types) > {"identity_link/v1", "transfer/v1"}
    # READY stands on control, once, named by what it says
    facts_digest = run.facts.digest
    ready = message_id("run_ready", pins, run.scenario.scenario_run_id, facts_digest)
    assert sha256_hex(f"ready|{pins.run_id}|{run.scenario.scenario_run_id}|{facts_digest}".encode()) == ready
    assert control_records(plane) == [("run_ready", ready, facts_digest)]
    assert not site.request().is_new
    assert control_records(plane) == [("run_ready", ready, facts_digest)]
    counted = site.stream()
    assert counted == {"ADMIT": manifest.rows}
    assert plane.ensure_live().pins == pins
    ended = site.runner.end("the world is over")
    assert (ended.status.state, ended.is_new, ended.status.sequence) == (RunState.ENDED, True, 1)
    assert not site.runner.end("again").is_new
    assert [name for name, *_ in control_records(plane)] == ["run_ready", "run_end"]
    assert outcome_of(site.admit("too-late")) == (AdmissionOutcome.QUARANTINE, QuarantineReason.RUN_NOT_ACTIVE)
    with pytest.raises(RunNotReady, match="it is ENDED"):
        ready_run(plane)
    # what was admitted is served and built from
    assert plane.live() is not None
    assert load_run_facts(plane.pool, run.facts.reference, pins, plane.profile.stream_name) == run.facts
    with pytest.raises(RunRefused, match="RUN_OVER"):
        site.request()


def test_a_cancelled_run_is_over_for_everybody(new_site: Callable[..., Site]) -> None:
    site = new_site()
    with pytest.raises(RunRefused, match="cannot become CANCELLED: nobody asked for it"):
        site.runner.cancel("too early")
    with pytest.raises(RunRefused, match="cannot become ENDED: nobody asked for it"):
        site.runner.end("too early")
    site.request()
    site.plane.ensure_live()
    run = ready_run(site.plane)
    assert site.runner.cancel("wrong world").status.reason == "wrong world"
    assert not site.runner.cancel("again").is_new
    with pytest.raises(RunRefused, match="cannot become ENDED: it is CANCELLED, and not READY"):
        site.runner.end("too late")
    assert outcome_of(site.admit("e-1")) == (AdmissionOutcome.QUARANTINE, QuarantineReason.RUN_NOT_ACTIVE)
    assert site.plane.live() is None
    with pytest.raises(RunNotReady, match="is CANCELLED"):
        site.plane.open_beside()
    with pytest.raises(BuildRefused, match="the run is CANCELLED"):
        load_run_facts(site.plane.pool, run.facts.reference, run.facts.context_pins, run.facts.stream_name)


async def test_a_service_stops_to_serve_a_run_that_is_cancelled(new_site: Callable[..., Site], module_dsn: str) -> None:
    site = new_site()
    service = OnlineService(site.plane.profile, module_dsn, connections=2)
    await service.open()
    try:
        assert service.reader is None
        site.request()
        site.plane.ensure_live()
        assert service.monitor is not None
        while service.reader is None or service.monitor.posture["reasons"] == ["NO_PROJECTION"]:
            service._catch_up()
            await service.monitor.observe()
        service._refuse_when_red()
        site.runner.cancel("stop")
        await service.monitor.observe()
        assert service.monitor.posture["reasons"] == ["NO_PROJECTION"]
        with pytest.raises(Exception, match="once the run is READY"):
            service._refuse_when_red()
    finally:
        await service.close()


def test_a_run_whose_world_is_wrong_is_refused_with_evidence_and_asked_for_again(new_site: Callable[..., Site]) -> None:
    site = new_site()
    [file] = (site.folder / "oracle/rings/stream_view/links").glob("*.parquet")
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(bytes(flipped))
    refused = site.request()
    assert refused.status.state is RunState.REFUSED
    assert any(text.startswith("world_sealed: stream_view/links/part-00000.parquet") for text in refused.problems)
    failed = [gate.check for gate in refused.evidence if gate.status.value == "FAIL"]
    assert failed == ["world_rows", "world_sealed", "world_times", "world_types"]
    assert refused.status.reason == "failed: world_rows, world_sealed, world_times, world_types"
    assert outcome_of(site.admit("e-1")) == (AdmissionOutcome.QUARANTINE, QuarantineReason.RUN_NOT_ACTIVE)
    assert control_records_or_none(site.plane) == []
    with pytest.raises(BuildRefused, match="no run facts are published"):
        load_run_facts(site.plane.pool, "facts/x", refused.status.context_pins, site.plane.profile.stream_name)
    file.write_bytes(content)
    again = site.request()
    assert (again.status.state, again.status.sequence) == (RunState.READY, 1)


def control_records_or_none(plane: Plane) -> list[tuple[str, str, str]]:
    return control_records(plane) if plane.control_log().ends().partitions else []


def test_a_gate_that_finds_nothing_fails(new_site: Callable[..., Site]) -> None:
    site = new_site()
    refused = site.request(outputs=["nothing_of_that_name"])
    assert refused.status.state is RunState.REFUSED
    assert refused.problems == [
        "world_rows: nothing_of_that_name: is no output that is streamed",
        "world_rows: there is no row to stream",
    ]


def test_a_type_that_the_class_map_lacks_is_told(new_site: Callable[..., Site]) -> None:
    site = new_site(pack="card_payments", context_stream=None)
    refused = site.request()
    assert any(text.startswith("world_types: transfer/v1: the class map has no such") for text in refused.problems)
    assert any(text.startswith("world_types: identity_link/v1") for text in refused.problems)


def test_one_key_has_one_intent_and_pins_one_run(new_site: Callable[..., Site]) -> None:
    site = new_site()
    first = site.request().status
    with pytest.raises(RunRefused, match="EQUIV_KEY_COLLISION"):
        site.request(speedup="10")
    with pytest.raises(RunRefused, match="PINS_TAKEN"):
        site.request(mode=TrafficMode.BASELINE)
    with pytest.raises(RunRefused, match="PINS_TAKEN"):
        site.request(outputs=["transfers"])
    # another session of the same scenario is the same scenario run, with READY and facts of its own
    pins = first.context_pins.model_copy(update={"platform_run_id": "second", "scenario_run_id": first.scenario_run_id})
    site.plane.profile = site.profile(context_pins=pins)
    second = site.request(reference="facts/second").status
    assert second.scenario_run_id == first.scenario_run_id
    assert second.message_id != first.message_id
    # and one that says it is another is refused by its gate
    site.plane.profile = site.profile(context_pins=pins.model_copy(update={"platform_run_id": "third", "scenario_run_id": "x"}))
    refused = site.request(reference="facts/third")
    assert refused.problems == [f"run_pins: scenario_run_id: the pins say x, the run is {first.scenario_run_id}"]
    with site.plane.pool.connection() as connection:
        states = [step.state for step in list_run_status(connection, 3)]
    assert Counter(states) == {RunState.READY: 2, RunState.REFUSED: 1}


def test_a_run_without_a_stream_of_links_is_read_again_as_it_was(new_site: Callable[..., Site]) -> None:
    site = new_site(context_stream=None)
    outcome = site.request(outputs=["transfers"])
    run = ready_run(site.plane)
    assert (run.plan.meaning.context_stream, run.plan.digest) == (None, outcome.status.plan_digest)
    assert site.stream()["ADMIT"] == world_of(site.plane, run).manifest.outputs[1].rows


def test_drift_is_refused(new_site: Callable[..., Site], module_dsn: str) -> None:
    site = new_site()
    site.request()
    run, plane = ready_run(site.plane), site.plane
    pins, stream = run.facts.context_pins, run.facts.stream_name
    # facts that READY does not name, whoever published them
    for reference, facts in (
        ("facts/other", run.facts.model_copy(update={"reference": "facts/other"})),
        ("facts/bare", run.facts.model_copy(update={"reference": "facts/bare", "scenario": None})),
    ):
        publish_run_facts(plane.pool, facts)
        with pytest.raises(BuildRefused, match="READY_DRIFT"):
            load_run_facts(plane.pool, reference, pins, stream)
    # of a run that nobody asked for, facts with a scenario say that somebody did
    other_pins = pins.model_copy(update={"run_id": "nobody-asked"})
    alien_facts = run.facts.model_copy(update={"reference": "facts/alien", "context_pins": other_pins, "evidence": ()})
    publish_run_facts(plane.pool, alien_facts)
    with pytest.raises(BuildRefused, match="hold no PASS"):
        load_run_facts(plane.pool, "facts/alien", other_pins, stream)
    # a world that was replaced behind its name
    folder = site.folder / "oracle" / "rings"
    for path in sorted(folder.rglob("*.parquet")):
        path.unlink()
    (folder / "manifest.json").unlink()
    (folder / "seal.json").unlink()
    made = rings_world(
        RingSimulation(pins, accounts=30, families=3, ring=3, days=4, quiet_days=1, linked_after_days=3, amended=4)
    )
    write_world(plane.objects, "rings", made.maker, made.outputs)
    seal_world(plane.objects, "rings")
    with pytest.raises(WorldFault, match="FACTS_VIEW_DRIFT"):
        world_of(plane, run)
    # a plan that says otherwise than the facts
    with connect(module_dsn, autocommit=True) as connection:
        with pytest.raises(Exception, match="never changed"):
            connection.execute("UPDATE ofp.run_status SET state = 'READY'")
        connection.execute("ALTER TABLE ofp.evidence DISABLE TRIGGER append_only")
        connection.execute("DELETE FROM ofp.evidence WHERE digest = %s", (run.scenario.plan_digest,))
        connection.execute("ALTER TABLE ofp.evidence ENABLE ALWAYS TRIGGER append_only")
    with pytest.raises(BuildRefused, match=r"FACTS_VIEW_DRIFT.*is not stored"):
        ready_run(plane)


@pytest.mark.parametrize("said", ["manifest_digest", "outputs", "class_map_digest", "traffic_delivery_mode"])
def test_facts_that_differ_from_their_plan_are_refused(new_site: Callable[..., Site], module_dsn: str, said: str) -> None:
    site = new_site()
    site.request()
    run = ready_run(site.plane)
    other = {"outputs": ("links",), "traffic_delivery_mode": TrafficMode.BASELINE}.get(said, "f" * 64)
    forged_facts = run.facts.model_copy(update={"scenario": run.scenario.model_copy(update={said: other})})
    content = canonical_bytes(forged_facts.wire()).decode()
    status = run.status.model_copy(update={"facts_digest": forged_facts.digest})
    with connect(module_dsn, autocommit=True) as connection:  # with all rights, and both records forged alike
        for table in ("run_facts", "run_status"):
            connection.execute(f"ALTER TABLE ofp.{table} DISABLE TRIGGER append_only")
        connection.execute(
            "UPDATE ofp.run_facts SET content = %s, digest = %s WHERE reference = %s",
            (content, forged_facts.digest, run.facts.reference),
        )
        connection.execute(
            "UPDATE ofp.run_status SET content = %s WHERE pins_digest = %s",
            (canonical_bytes(status.wire()).decode(), pins_digest(run.facts.context_pins)),
        )
        for table in ("run_facts", "run_status"):
            connection.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")
    with pytest.raises(BuildRefused, match=f"FACTS_VIEW_DRIFT.*differ from their plan in {said}"):
        ready_run(site.plane)


def test_two_runners_say_ready_once(new_site: Callable[..., Site], module_dsn: str) -> None:
    site = new_site()
    site.plane.control_log(create=True)
    outcomes: list[RunnerOutcome] = []

    def run() -> None:
        with Plane.open(site.plane.profile, module_dsn) as plane:
            own = Site(plane, ScenarioRunner(plane, "other", lambda: next(moments)), site.folder)
            outcomes.append(own.request())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.is_new for outcome in outcomes) == [False, False, True]
    assert len({outcome.status.message_id for outcome in outcomes}) == 1
    assert len(control_records(site.plane)) == 1


def test_a_run_that_ends_waits_for_batches_and_admits_none_behind(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.request()
    assert outcome_of(site.admit("e-1")) == (AdmissionOutcome.ADMIT, None)
    stop, receipts = threading.Event(), []
    began = threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set() or number < 5:
            number += 1
            receipts.append(outcome_of(site.admit(f"load-{number}"))[0])
            if number > 2:
                began.set()

    thread = threading.Thread(target=send)
    thread.start()
    began.wait()
    site.runner.end("enough")
    log = site.plane.log
    assert isinstance(log, PostgresLog)
    at_the_end = log.ends()
    stop.set()
    thread.join()
    assert log.ends() == at_the_end
    assert receipts.count(AdmissionOutcome.ADMIT) >= 2
    assert receipts == sorted(receipts, key=lambda outcome: outcome is not AdmissionOutcome.ADMIT)


def test_facts_of_another_run_under_the_reference_are_not_replaced(new_site: Callable[..., Site]) -> None:
    first, second = new_site(), new_site()
    first.request(reference="facts/shared")
    with pytest.raises(RunFactsConflict):
        second.request(reference="facts/shared")
    with second.plane.pool.connection() as connection:
        assert read_run_status(connection, second.plane.profile.context_pins) is None


def test_without_a_stream_of_control_there_is_nothing_to_ask_for(new_site: Callable[..., Site]) -> None:
    site = new_site(control_stream=None)
    with pytest.raises(NoControlStream):
        site.request()
    assert outcome_of(site.admit("e-1")) == (AdmissionOutcome.ADMIT, None)
    assert site.plane.ensure_live() is not None


def test_a_step_that_is_cut_off_leaves_nothing(new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last statement of the transaction fails: no message on control, no facts, no step; the same request works then."""
    site = new_site()

    def cut_off(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(runner, "append_run_status", cut_off)
        with pytest.raises(ZeroDivisionError):
            site.request()
    assert control_records(site.plane) == []
    assert outcome_of(site.admit("e-1")) == (AdmissionOutcome.QUARANTINE, QuarantineReason.RUN_NOT_ACTIVE)
    with site.plane.pool.connection() as connection:
        assert read_run_status(connection, site.plane.profile.context_pins) is None
    assert site.request().is_new
    with monkeypatch.context() as patch:
        patch.setattr(runner, "append_run_status", cut_off)
        with pytest.raises(ZeroDivisionError):
            site.runner.end("cut off")
    assert [name for name, *_ in control_records(site.plane)] == ["run_ready"]
    assert outcome_of(site.admit("e-2")) == (AdmissionOutcome.ADMIT, None)


def test_a_run_does_not_end_while_records_of_it_are_on_their_way(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.request()
    run = pins_digest(site.plane.profile.context_pins)
    site.admit("here")
    with site.plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.admission_publish"
            " (run_number, state, begun_at, producer, class_map_digest, traffic_head, outcomes, content)"
            " SELECT run_number, 'PUBLISH_IN_FLIGHT', 0, 'p', 'd', '{}', '', '' FROM ofp.admission_run WHERE pins_digest = %s",
            (run,),
        )
        connection.execute(
            "INSERT INTO ofp.admission_publish_record (publish_id, run_number, event_key, event_type, place, is_context)"
            " SELECT publish_id, run_number, sha256('x'), 'transfer', 0, false FROM ofp.admission_publish"
        )
    with pytest.raises(RunRefused, match=r"1 records of run .* are on their way into the log"):
        site.runner.end("over")
    with site.plane.pool.connection() as connection:
        connection.execute("DELETE FROM ofp.admission_publish_record")
        connection.execute("DELETE FROM ofp.admission_publish")
    assert site.runner.end("over").status.state is RunState.ENDED
