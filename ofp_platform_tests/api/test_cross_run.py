"""Ten thousand tries to reach another run, or past one's scopes: two real services on one database, real keys, no row.

Each answer is held against what the principal may; one that it may not have is held, byte for byte, against the answer about a
thing that does not exist, and searched for what is of another run.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from ofp_platform.actions.intents import record_intents
from ofp_platform.api.access_log import read_accesses
from ofp_platform.api.action_examples import action_settlement_ask_example
from ofp_platform.api.build_examples import intent_example
from ofp_platform.api.case_examples import case_entry_ask_example, case_trigger_ask_example
from ofp_platform.api.examples import labels_example
from ofp_platform.api.posture_examples import posture_hold_example, posture_release_example
from ofp_platform.api.principals import Principal, Scope
from ofp_platform.api.route_scopes import (
    ACTION,
    ACTION_SETTLEMENT,
    ACTIONS,
    APPLY_FAILURES,
    BUILD_CANCELLATION,
    BUILD_INTENTS,
    BUILD_RUN,
    BUILD_RUNS,
    BUILD_STAGES,
    BUNDLES,
    BUNDLES_IN_FORCE,
    CASE,
    CASE_ENTRIES,
    CASES,
    CATALOGUE,
    DATASET,
    DATASETS,
    DECISION,
    DECISIONS,
    ENTITY,
    EXPLANATION,
    FEAST_FEATURES,
    FEATURE_GROUPS,
    GET_FEATURES,
    HEALTH_HISTORY,
    LABELS,
    METRICS,
    PACK_OPERATIONS,
    PARITY,
    PARITY_REPORT,
    POSTURE,
    POSTURE_HOLD,
    POSTURE_RELEASE,
    REBUILT_SNAPSHOT,
    SCOPES,
    SNAPSHOT,
    Open,
    scope_of,
)
from ofp_platform.cases.case_desk import CaseDesk
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.client import OfpClient
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, OriginKind
from ofp_platform.vocabulary.loop.case import CaseEvent, CaseTrigger, case_id
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, AsOfSpec
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot, rebuilt_snapshot_path
from ofp_platform.vocabulary.profile import load_profile
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.api.keys import KEY, principal, write_principals
from ofp_platform_tests.api.test_route_scopes import routes
from ofp_platform_tests.oracle.decided import decision_on
from ofp_platform_tests.oracle.kept import keep_one_of_each
from ofp_platform_tests.oracle.simulated_log import PINS, deliveries, write_profile

TRIES, THREADS, SEED = 18_000, 4, 20_261_128
RECORDED_DECISIONS = f"POST {DECISIONS}"
TRIGGERED_CASES = f"POST {CASES}"
TRIED: dict[str, Scope | Open] = {
    **SCOPES,
    RECORDED_DECISIONS: scope_of(DECISIONS, "POST"),
    TRIGGERED_CASES: scope_of(CASES, "POST"),
}
"""Routes to their scopes, a path with two of them by its method."""
FOR_THE_SERVED_RUN = (
    *(GET_FEATURES, RECORDED_DECISIONS, DECISION, LABELS),
    *(BUILD_STAGES, PARITY_REPORT, DATASET, EXPLANATION),
    *(TRIGGERED_CASES, CASE, CASE_ENTRIES),
    *(ACTION, ACTION_SETTLEMENT),
)
"""Routes that answer for the run that is served alone, whichever run the question names."""
RUNS = ("run-of-alpha", "run-of-beta")
NOWHERE = "run-of-nobody"
CAST = (*RUNS, NOWHERE)
_OF_THE_MOMENT = {"date", "x-request-id", "content-length"}


@dataclass
class Town:
    """Two services, one for each run, and what there is to find: by run, and for a run that is none, names of nothing."""

    ports: dict[str, int] = field(default_factory=dict)
    callers: list[tuple[str, Principal]] = field(default_factory=list)
    snapshots: dict[str, list[str]] = field(default_factory=dict)
    rebuilt: dict[str, list[str]] = field(default_factory=dict)
    build_runs: dict[str, list[str]] = field(default_factory=dict)
    decisions: dict[str, list[str]] = field(default_factory=dict)
    cases: dict[str, list[str]] = field(default_factory=dict)
    actions: dict[str, list[str]] = field(default_factory=dict)
    comparisons: dict[str, list[str]] = field(default_factory=dict)
    datasets: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    homes: dict[str, Path] = field(default_factory=dict)
    key_id: str = ""
    watermark: int = 0

    def question(self, run_id: str, number: int = 0) -> dict[str, Any]:
        """What to ask of a run; another instant for another number."""
        return {
            "kind": "get_features_request",
            "contract_version": CONTRACT_VERSION,
            "context_pins": pins_of(run_id),
            "feature_keys": [{"key_type": "account", "key_id": self.key_id}],
            "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
            "as_of_time_utc": format_time(self.watermark - number),
        }


@dataclass(frozen=True)
class Try:
    """One request: who asks which service for what of which run."""

    caller: int
    service: str
    route: str
    target: str
    name: str = ""


@dataclass(frozen=True)
class Answer:
    """Status, headers that may tell something, and body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


def pins_of(run_id: str) -> dict[str, Any]:
    return {**PINS, "run_id": run_id}


def intent_of(run_id: str) -> dict[str, Any]:
    return {**intent_example(), "context_pins": pins_of(run_id), "dataset_name": "cross_run"}


def everybody() -> list[tuple[str, Principal]]:
    """For each run: who may do everything, each scope alone, nothing; and who may everything but for no run."""
    cast = [principal("nowhere", list(Scope), ())]
    for name, run_id in zip("ab", RUNS, strict=True):
        own = [{"run_id": run_id}]
        cast += [principal(f"{name}-everything", list(Scope), own), principal(f"{name}-nothing", [], own)]
        cast += [principal(f"{name}-{scope.value}", [scope], [pins_of(run_id)]) for scope in Scope]
        cast.append(principal(f"{name}-of-another-seed", list(Scope), [{"run_id": run_id, "seed": 4}]))
    return cast


@pytest.fixture(scope="module")
def town(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    home = tmp_path_factory.mktemp("town")
    found = Town(callers=everybody())
    principals = write_principals(home / "principals.json", *(one for _, one in found.callers))
    root = str(Path(__file__).parents[2])
    variables = {
        "OFP_DATABASE_URL": module_dsn,
        "OFP_PRINCIPALS": str(principals),
        "PYTHONPATH": os.pathsep.join([root, *sys.path]),
    }
    with ExitStack() as stack:
        for run_id in RUNS:
            _open(stack, found, run_id, home, module_dsn, variables)
        chance = random.Random(SEED)
        by_name = (
            found.snapshots,
            found.rebuilt,
            found.build_runs,
            found.decisions,
            found.cases,
            found.actions,
            found.comparisons,
            found.datasets,
        )
        for names in by_name:
            names[NOWHERE] = [f"{chance.getrandbits(256):064x}" for _ in range(3)]
        pins = ContextPins.model_validate(pins_of(NOWHERE))
        record = DecisionRecord.model_validate_json(found.records[RUNS[0]])
        changes = {"context_pins": pins, "decision_id": decision_id(pins, record.event_type, record.event_id)}
        found.records[NOWHERE] = canonical_bytes(record.model_copy(update=changes).wire())
        yield found


def _open(stack: ExitStack, town: Town, run_id: str, home: Path, dsn: str, variables: dict[str, str]) -> None:
    """Project a run, serve it, and leave in it whatever can be asked for by name."""
    folder = home / run_id
    folder.mkdir()
    town.homes[run_id] = folder
    # one object store for both: a hash alone opens any object in it
    changes = {
        "context_pins": pins_of(run_id),
        "stream_name": f"stream-{RUNS.index(run_id)}",
        "object_store_url": f"file://{home}/objects",
        "context_stream": f"links-{RUNS.index(run_id)}",
    }
    path = write_profile(folder, **changes)
    with Plane.open(load_profile(path), dsn) as plane:
        part = deliveries()
        records = [{**record, "run_id": run_id} if record["run_id"] == PINS["run_id"] else record for record in part.records()]
        assert not plane.log.append(records, part.clock()).refusals
        projected = plane.projector(plane.ensure_live())
        while projected.apply_available(max_records=1_000) is not None:
            pass
        plane.graph_projector().drain()
        live = plane.live()
        assert live is not None
        assert live.watermark is not None
        key_id = next(record["payload"]["account_id"] for record in records if "account_id" in record["payload"])
        town.watermark = live.watermark
        town.key_id = key_id
    command = ofp_command("serve", "--port", "0", "--profile", str(path), "--home", str(folder))
    service = stack.enter_context(Child(run_id, command, variables, folder / "serve.log"))
    address = service.wait_for_line("serving at ", 60)
    assert address is not None
    town.ports[run_id] = int(address.rpartition(":")[2])
    with OfpClient(address, token=KEY, timeout_seconds=30) as ofp:
        questions = [GetFeaturesRequest.model_validate(town.question(run_id, number)) for number in range(3)]
        town.snapshots[run_id] = [ofp.ask(question).provenance.feature_snapshot_hash for question in questions]
        objects = ObjectStore(f"file://{home}/objects")
        for name in town.snapshots[run_id]:
            hashed = ofp.get_snapshot(name).hashed
            as_of = AsOfSpec(as_of_time_utc=hashed["as_of_time_utc"], as_of_basis=AsOfBasis.DECISION)
            rebuilt = RebuiltFeatureSnapshot.of(name, hashed, as_of)
            objects.put_if_absent(rebuilt_snapshot_path(name), canonical_bytes(rebuilt.wire()))
        town.rebuilt[run_id] = town.snapshots[run_id]
        record = decision_on(ofp.ask(questions[0]))
        town.decisions[run_id] = [ofp.record_decision(record).decision_id]
        town.records[run_id] = canonical_bytes(record.wire())
        town.build_runs[run_id] = [ofp.submit_intent(intent_of(run_id)).run_key]
    _compare_and_publish(town, run_id, dsn, objects)


def _compare_and_publish(town: Town, run_id: str, dsn: str, objects: ObjectStore) -> None:
    """Leave a comparison, published datasets, builds and the switch to a pack in a run."""
    pins = ContextPins.model_validate(pins_of(run_id))
    with open_pool(dsn, max_size=2) as pool:
        stream_name = f"stream-{RUNS.index(run_id)}"
        kept = keep_one_of_each(pool, objects, pins, stream_name, town.decisions[run_id][0], town.snapshots[run_id][0])
    event = CaseEvent(event_class="card_payment", event_id=case_trigger_ask_example()["event_id"])
    town.cases[run_id] = [case_id(pins, event.event_class, event.event_id)]
    with open_pool(dsn, max_size=2) as pool:
        desk = CaseDesk(pool, pins, lambda assertion, submitted_by: None, lambda: 1_800_000_000_000_000)
        desk.trigger(event, CaseTrigger.MANUAL_ASSERTION, "call", "a customer called", "ann")
    town.actions[run_id] = [_leave_action(pins, dsn)]
    town.comparisons[run_id] = [kept.comparison_id]
    town.datasets[run_id] = [kept.dataset.dataset_identity]
    town.build_runs[run_id].append(kept.build)


def _leave_action(pins: ContextPins, dsn: str) -> str:
    """Leave an action in a run, which waits to be done; its key."""
    intent = ActionIntent.create(
        origin=ActionOrigin(origin_kind=OriginKind.OPERATOR, reference=pins.run_id),
        action_type="hold_account",
        target=FeatureKey(key_type=KeyType.ACCOUNT, key_id="acct-1"),
        context_pins=pins,
        actor="operator",
        policy_rev=f"1.{'0' * 64}",
        at_utc="2026-03-31T12:00:00Z",
    )
    with open_pool(dsn, max_size=2) as pool, pool.connection() as connection:
        log = PostgresLog.create(pool, f"acts-of-{pins.run_id}", 1, "event_id")
        with connection.transaction():
            record_intents(connection, log, [intent])
    return intent.idempotency_key


LEFT_OUT = (GET_FEATURES, BUILD_CANCELLATION)
"""Not among the others: asked more often, or by the test below."""
GRANTED = {EXPLANATION: 400, POSTURE_HOLD: 400, POSTURE_RELEASE: 400, ACTION_SETTLEMENT: 409}
"""Answers to whoever may have one, other than 200: each explanation reads a log again, so those ask for no feature; the runs have
no stream of control, in which a change of the posture would stand, and no action that waits for people."""


OF_THE_SERVED_RUN = (
    *(APPLY_FAILURES, FEATURE_GROUPS, CATALOGUE, ENTITY, FEAST_FEATURES, DECISIONS),
    *(BUILD_RUNS, PARITY, DATASETS, PACK_OPERATIONS, HEALTH_HISTORY, CASES),
    *(BUNDLES, BUNDLES_IN_FORCE, POSTURE, POSTURE_HOLD, POSTURE_RELEASE, ACTIONS),
)
"""Routes whose question names no run: it is the one that is served."""


def request_of(town: Town, attempt: Try) -> tuple[str, str, bytes | None]:
    """Method, path and body."""
    path = attempt.route.replace("{snapshot_hash}", attempt.name).replace("{run_key}", attempt.name)
    path = path.replace("{decision_id}", attempt.name).replace("{name}", "app.js").removeprefix("POST ")
    path = path.replace("{case_id}", attempt.name).replace("{idempotency_key}", attempt.name)
    path = path.replace("{comparison_id}", attempt.name).replace("{dataset_identity}", f"{attempt.name}?name=fraud_by_payment")
    if attempt.route == GET_FEATURES:
        return "POST", path, json.dumps(town.question(attempt.target)).encode()
    if attempt.route == FEAST_FEATURES:
        question = town.question(attempt.service)
        group, key = question["feature_groups"][0], question["feature_keys"][0]
        asked = {"features": [f"{group['group_name']}:count_24h"], "entities": {key["key_type"]: [key["key_id"]]}}
        return "POST", path, json.dumps({**asked, "as_of_time_utc": question["as_of_time_utc"]}).encode()
    if attempt.route == RECORDED_DECISIONS:
        return "POST", path, town.records[attempt.target]
    if attempt.route == TRIGGERED_CASES:
        ask = {**case_trigger_ask_example(), "context_pins": pins_of(attempt.target), "event_class": "card_payment"}
        return "POST", path, json.dumps(ask).encode()
    if attempt.route == CASE_ENTRIES:
        note = {"entry_type": "NOTE", "text": "looked at"}
        entry = {**case_entry_ask_example(), "context_pins": pins_of(attempt.target), "content": note}
        return "POST", path, json.dumps(entry).encode()
    if attempt.route == ACTION_SETTLEMENT:
        ask = {**action_settlement_ask_example(), "context_pins": pins_of(attempt.target)}
        return "POST", path, json.dumps(ask).encode()
    if attempt.route == ENTITY:
        return "GET", f"{path}?{urlencode({'key_type': 'account', 'key_id': town.key_id})}", None
    if attempt.route == LABELS:
        labels = {**labels_example(), "context_pins": pins_of(attempt.target)}
        labels["assertions"][0]["event_class"] = "card_payment"
        return "POST", path, json.dumps(labels).encode()
    if attempt.route == EXPLANATION:
        return "GET", path if allowed(town, attempt) == GRANTED[EXPLANATION] else f"{path}?{explained(town)}", None
    if attempt.route == BUILD_INTENTS:
        return "POST", path, json.dumps(intent_of(attempt.target)).encode()
    if attempt.route == POSTURE_HOLD:
        return "POST", path, json.dumps(posture_hold_example()).encode()
    if attempt.route == POSTURE_RELEASE:
        return "POST", path, json.dumps(posture_release_example()).encode()
    return ("POST", path, b"") if attempt.route == BUILD_CANCELLATION else ("GET", path, None)


def explained(town: Town) -> str:
    """A query that names a value of every snapshot of the town."""
    return urlencode({"feature": "count_24h", "key": f"account:{town.key_id}", "group": "account_activity:v1"})


def tries(town: Town) -> list[Try]:
    """Seeded; half of them the way that costs nothing, the others all routes alike."""
    chance = random.Random(SEED)
    rest = [route for route in TRIED if route not in LEFT_OUT]
    by_name = {
        SNAPSHOT: town.snapshots,
        REBUILT_SNAPSHOT: town.rebuilt,
        BUILD_RUN: town.build_runs,
        BUILD_STAGES: town.build_runs,
        DECISION: town.decisions,
        CASE: town.cases,
        CASE_ENTRIES: town.cases,
        ACTION: town.actions,
        ACTION_SETTLEMENT: town.actions,
        EXPLANATION: town.snapshots,
        PARITY_REPORT: town.comparisons,
        DATASET: town.datasets,
    }
    made = []
    for _ in range(TRIES):
        route = GET_FEATURES if chance.random() < 0.5 else chance.choice(rest)
        service = chance.choice(RUNS)
        target = chance.choice((*CAST, service))
        name = chance.choice(by_name[route][target]) if route in by_name else ""
        made.append(Try(chance.randrange(len(town.callers)), service, route, target, name))
    return made


def allowed(town: Town, attempt: Try) -> int:
    """The status of the answer that a principal may have."""
    _, who = town.callers[attempt.caller]
    scope = TRIED[attempt.route]
    if isinstance(scope, Open):
        return 200
    if scope not in who.scopes:
        return 403
    if attempt.route == METRICS:
        return 200
    run_id = attempt.service if attempt.route in OF_THE_SERVED_RUN else attempt.target
    is_own = run_id in RUNS and who.may_read(ContextPins.model_validate(pins_of(run_id)))
    is_served = attempt.route not in FOR_THE_SERVED_RUN or attempt.target == attempt.service
    return GRANTED.get(attempt.route, 200) if is_own and is_served else 404


def ask(town: Town, attempt: Try, connections: dict[str, http.client.HTTPConnection]) -> Answer:
    """Over a connection that is kept; one that the service ended is opened again."""
    method, path, body = request_of(town, attempt)
    headers = {"authorization": f"Bearer {town.callers[attempt.caller][0]}"}
    if body is not None:
        headers["content-type"] = "application/json"
    connection = connections.setdefault(
        attempt.service, http.client.HTTPConnection("127.0.0.1", town.ports[attempt.service], timeout=60)
    )
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    telling = sorted((name, value) for name, value in response.getheaders() if name not in _OF_THE_MOMENT)
    return Answer(response.status, tuple(telling), text)


def stripped(text: str, attempt: Try) -> str:
    """An answer without what the request itself said: the name and the run that it asked for."""
    text = text.replace(attempt.name, "NAME") if attempt.name else text
    return text.replace(attempt.target, "RUN")


def recorded_accesses(town: Town, tried: int, since: int) -> Counter[tuple[str, bool]]:
    """How often each route was answered, and refused, since a moment (microseconds), by what the services have told of it."""
    written: Counter[tuple[str, bool]] = Counter()
    deadline = time.monotonic() + 30
    while sum(written.values()) < tried:
        assert time.monotonic() < deadline
        accesses = [fields for home in town.homes.values() for fields in read_accesses(home / "access")]
        own = [fields for fields in accesses if parse_time(str(fields["at_utc"])) >= since]
        written = Counter((str(fields["route"]), fields["outcome"] == "OK") for fields in own)
    for home in town.homes.values():
        for path in (home / "access").iterdir():
            assert town.key_id not in path.read_text()
    return written


def test_ten_thousand_tries_give_no_row_of_another_run(town: Town) -> None:
    made, since = tries(town), time.time_ns() // 1_000

    def part(number: int) -> list[tuple[Try, Answer]]:
        connections: dict[str, http.client.HTTPConnection] = {}
        answers = [(attempt, ask(town, attempt, connections)) for attempt in made[number::THREADS]]
        for connection in connections.values():
            connection.close()
        return answers

    with ThreadPoolExecutor(THREADS) as threads:
        answers = [answer for answers in threads.map(part, range(THREADS)) for answer in answers]
    assert len(answers) == TRIES
    statuses: Counter[tuple[str, int]] = Counter()
    refusals: dict[tuple[int, str, str], dict[tuple[int, tuple[tuple[str, str], ...], str], str]] = {}
    rows = []
    for attempt, answer in answers:
        expected = allowed(town, attempt)
        statuses[attempt.route, answer.status] += 1
        if answer.status != expected:
            rows.append(f"{answer.status}, not {expected}: {attempt} {answer.body[:300]}")
            continue
        _, who = town.callers[attempt.caller]
        for run_id in RUNS:
            is_foreign = not who.may_read(ContextPins.model_validate(pins_of(run_id)))
            if is_foreign and run_id in stripped(answer.body, attempt) and attempt.route != METRICS:
                rows.append(f"{run_id} is told: {attempt} {answer.body[:300]}")
        if expected != GRANTED.get(attempt.route, 200):
            seen = answer.status, answer.headers, stripped(answer.body, attempt)
            service = attempt.service if attempt.route in OF_THE_SERVED_RUN else ""
            if attempt.route == EXPLANATION and who.may_read(ContextPins.model_validate(pins_of(attempt.target))):
                service = "of another run than its own snapshot"
            refusals.setdefault((attempt.caller, attempt.route, service), {}).setdefault(seen, attempt.target)
    assert rows == []
    for status in (200, 403, 404):  # the access log has the path of a route
        statuses[DECISIONS, status] += statuses[RECORDED_DECISIONS, status]
        statuses[CASES, status] += statuses[TRIGGERED_CASES, status]
    tried = sum(number for (route, _), number in statuses.items() if TRIED[route] is not Open.OPEN and route in SCOPES)
    recorded = recorded_accesses(town, tried, since)
    for route in SCOPES:
        if SCOPES[route] is not Open.OPEN:
            assert recorded[route, True] >= statuses[route, 200]
            assert recorded[route, False] == sum(statuses[route, status] for status in (400, 403, 404, 409))
    # to whoever asks, what is of another run and what is of none are refused by the same bytes
    assert [(key, kinds) for key, kinds in refusals.items() if len(kinds) > 1] == []
    # and it was no test of doors that are closed to everybody
    for route in SCOPES:
        if route not in LEFT_OUT[1:]:
            assert statuses[route, GRANTED.get(route, 200)] > 5, route
            assert SCOPES[route] is Open.OPEN or statuses[route, 403] > 5, route
            assert route == METRICS or SCOPES[route] is Open.OPEN or statuses[route, 404] > 5, route


def test_every_method_of_every_route_is_tried(town: Town) -> None:
    tried = {(attempt.route.removeprefix("POST "), request_of(town, attempt)[0]) for attempt in tries(town)}
    assert tried | {(BUILD_CANCELLATION, "POST")} == routes()


def test_values_are_explained_to_whoever_may_read_their_run_alone(town: Town) -> None:
    connections: dict[str, http.client.HTTPConnection] = {}
    callers = {who.name: number for number, (_, who) in enumerate(town.callers)}
    by_run = dict(zip(RUNS, ("a-everything", "b-everything"), strict=True))
    for run_id, name in by_run.items():
        with OfpClient(f"http://127.0.0.1:{town.ports[run_id]}", token=town.callers[callers[name]][0], timeout_seconds=60) as ofp:
            answer = ofp._http.get(f"/v0/snapshots/{town.snapshots[run_id][0]}/explanation?{explained(town)}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["kind"]
    # behind those answers, which are kept, too
    for run_id, other in zip(RUNS, reversed(RUNS), strict=True):
        for service in RUNS:
            refusals = set()
            for target in (other, NOWHERE):
                attempt = Try(callers[by_run[run_id]], service, EXPLANATION, target, town.snapshots[target][0])
                refused_answer = ask(town, attempt, connections)
                assert refused_answer.status == 404
                refusals.add((refused_answer.headers, stripped(refused_answer.body, attempt)))
            assert len(refusals) == 1
    for connection in connections.values():
        connection.close()


def test_a_run_of_another_is_neither_cancelled_nor_told(town: Town) -> None:
    connections: dict[str, http.client.HTTPConnection] = {}
    for caller, (_, who) in enumerate(town.callers):
        answers = set()
        for target in CAST:
            if target in RUNS and who.may_read(ContextPins.model_validate(pins_of(target))):
                continue
            attempt = Try(caller, RUNS[0], BUILD_CANCELLATION, target, town.build_runs[target][0])
            answer = ask(town, attempt, connections)
            assert answer.status == (404 if Scope.BUILDS_SUBMIT in who.scopes else 403)
            answers.add((answer.status, answer.headers, stripped(answer.body, attempt)))
        assert len(answers) == 1
    for connection in connections.values():
        connection.close()
    with OfpClient(f"http://127.0.0.1:{town.ports[RUNS[0]]}", token=KEY, timeout_seconds=30) as ofp:
        for run_id in RUNS:
            assert ofp.build_run(town.build_runs[run_id][0]).state == "QUEUED"
