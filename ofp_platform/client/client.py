"""`OfpClient` and `AsyncOfpClient`: the routes of the HTTP service as typed methods."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ofp_platform.client.answer import (
    ReceivedFeatures,
    ServiceUnreachable,
    action_of,
    case_of,
    decided_of,
    decision_of,
    entry_of,
    features_of,
    parse,
    rebuilt_of,
    receipt_of,
    record_of,
    refused,
    run_of,
)
from ofp_platform.client.loop_questions import case_body, envelope_body, label_body, settlement_body
from ofp_platform.client.question import (
    Groups,
    Intent,
    Keys,
    decision_query,
    entity_path,
    explanation_path,
    intent_body,
    labels_body,
    make_request,
    path_with,
    request_body,
)
from ofp_platform.client.retries import RetryPolicy, may_pass
from ofp_platform.vocabulary.apply_failures import ApplyFailures
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.catalogue import Catalogue
from ofp_platform.vocabulary.explanation import Explanation
from ofp_platform.vocabulary.health_history import HealthHistory
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.identity_link import EntityProfile
from ofp_platform.vocabulary.loop.action import ActionRecord, ActionState
from ofp_platform.vocabulary.loop.action_requests import ActionList
from ofp_platform.vocabulary.loop.case_requests import Case, CaseEntryAsk, CaseList, CaseReceipt, CaseTriggerAsk, LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.decision_record import DecisionList, DecisionReceipt, DecisionRecord
from ofp_platform.vocabulary.offline.build_intent import request_id as request_id_of
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion, LabelReceipt
from ofp_platform.vocabulary.offline.overviews import (
    BuildList,
    BuildProgress,
    DatasetList,
    ParityList,
    ParityReport,
    PublishedDataset,
)
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot
from ofp_platform.vocabulary.pack_operations import PackOperations
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import FeatureGroups, GetFeaturesRequest, Health, SnapshotRecord

_JSON = {"content-type": "application/json"}


def _demand_status(response: httpx.Response, accepted_statuses: tuple[int, ...]) -> httpx.Response:
    if response.status_code not in accepted_statuses:
        raise refused(response)
    return response


def _health(response: httpx.Response) -> Health:
    # RED answers 503 with a health object; an error of the contract with the same status is not one
    if response.status_code != 200 and b'"ofp_health"' not in response.content:
        raise refused(response)
    return parse(Health, response.content)


Token = str | Callable[[], str]
"""A key, or what gives the one of the moment: asked before each request, so that a rotated one is taken up."""


class _Bearer(httpx.Auth):
    def __init__(self, token: Token) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self._token if isinstance(self._token, str) else self._token()
        request.headers["authorization"] = f"Bearer {token}"
        yield request


@dataclass(frozen=True)
class ClientTls:
    """Files in PEM. `ca`: the authority of the service's certificate, None for those of the machine; the client's own pair
    where the service asks for one."""

    ca: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None

    def context(self) -> ssl.SSLContext:
        """As a context that verifies the service and its name.

        Raises:
            OSError: a file is missing or broken.
        """
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def client_settings(base_url: str, token: Token | None, timeout_seconds: float, tls: ClientTls | None) -> dict[str, Any]:
    """The settings of an httpx client that asks the service alone."""
    # trust_env: a decision service talks to the plane it names, not through a proxy that its environment happens to have
    settings: dict[str, Any] = {"base_url": base_url, "timeout": timeout_seconds, "trust_env": False}
    settings["auth"] = None if token is None else _Bearer(token)
    return settings if tls is None else settings | {"verify": tls.context()}


class OfpClient:
    """Synchronous client. Safe for threads. `sleep` (seconds) and `chance` (in [0, 1)) drive the pauses between tries.

    Every method raises ContractError (a refusal), ServiceUnreachable (no answer, after all tries) or AnswerNotTrusted.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Token | None = None,
        tls: ClientTls | None = None,
        timeout_seconds: float = 2.0,
        retries: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._http = httpx.Client(**client_settings(base_url, token, timeout_seconds, tls), transport=transport)
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self._chance = chance

    def get_features(
        self,
        *,
        context_pins: ContextPins,
        feature_keys: Keys,
        feature_groups: Groups,
        as_of_time_utc: str | datetime,
        request_context: Mapping[str, int | str] | None = None,
        at_least_basis: Sequence[Position] | None = None,
        request_id: str | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> ReceivedFeatures:
        """Features of entities at an instant; see `make_request` for the arguments."""
        return self.ask(
            make_request(
                context_pins=context_pins,
                feature_keys=feature_keys,
                feature_groups=feature_groups,
                as_of_time_utc=as_of_time_utc,
                request_context=request_context,
                at_least_basis=at_least_basis,
                request_id=request_id,
                extensions=extensions,
            )
        )

    def ask(self, request: GetFeaturesRequest) -> ReceivedFeatures:
        """The answer to a request made with `make_request`."""
        return features_of(self._send("POST", "/v0/get_features", request_body(request)))

    def get_snapshot(self, snapshot_hash: str) -> SnapshotRecord:
        """The record of a served snapshot, its hash recomputed."""
        return record_of(self._send("GET", f"/v0/snapshots/{snapshot_hash}"), snapshot_hash)

    def get_rebuilt_snapshot(self, snapshot_hash: str) -> RebuiltFeatureSnapshot:
        """A snapshot that a forensic rebuild gave, its hash recomputed."""
        return rebuilt_of(self._send("GET", f"/v0/rebuilt_snapshots/{snapshot_hash}"), snapshot_hash)

    def feature_groups(self) -> FeatureGroups:
        """The catalogue."""
        return parse(FeatureGroups, self._send("GET", "/v0/feature_groups").content)

    def explain(self, snapshot_hash: str, feature: str, *, key: str | None = None, group: str | None = None) -> Explanation:
        """A served value and the events in its windows. `key`: TYPE:ID and `group`: NAME:VERSION, where several are meant."""
        return parse(Explanation, self._send("GET", explanation_path(snapshot_hash, feature, key, group)).content)

    def catalogue(self) -> Catalogue:
        """The definitions of the groups, and who reads them."""
        return parse(Catalogue, self._send("GET", "/v0/catalogue").content)

    def entity(self, key: FeatureKey | tuple[str, str], *, as_of_time_utc: str | datetime | None = None) -> EntityProfile:
        """The entity of a key at a time (default: now): canonical key, members, links and conflicts."""
        return parse(EntityProfile, self._send("GET", entity_path(key, as_of_time_utc)).content)

    def record_decision(self, record: DecisionRecord) -> DecisionReceipt:
        """Record a decision on features that this service answered. Again is safe: the same content has the same receipt."""
        return receipt_of(self._send("POST", "/v0/decisions", canonical_bytes(record.wire())), record)

    def decision(self, decision_id: str) -> DecisionRecord:
        """A recorded decision."""
        return decision_of(self._send("GET", f"/v0/decisions/{decision_id}"), decision_id)

    def decisions(
        self,
        *,
        key: FeatureKey | tuple[str, str] | None = None,
        event_id: str | None = None,
        from_utc: str | datetime | None = None,
        to_utc: str | datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DecisionList:
        """A page of decisions, the latest first: about an entity, on an event, decided in `[from_utc, to_utc)`."""
        query = decision_query(key, event_id, from_utc, to_utc, limit, cursor)
        return parse(DecisionList, self._send("GET", f"/v0/decisions{query}").content)

    def decide(self, envelope: Mapping[str, Any]) -> DecisionRecord:
        """Send one event to the door (`base_url` is that of `ofp ingress serve`), and wait for the plane's decision on it.
        Again is safe: it is the same event, and the same decision.
        """
        return decided_of(self._send("POST", "/v0/decide", envelope_body(envelope)), envelope)

    def cases(self, *, state: CaseState | None = None, limit: int | None = None, cursor: str | None = None) -> CaseList:
        """A page of cases of a state (default: open), the most urgent first."""
        path = path_with("/v0/cases", state=state, limit=limit, cursor=cursor)
        return parse(CaseList, self._send("GET", path).content)

    def case(self, case_id: str) -> Case:
        """A case with its timeline."""
        return case_of(self._send("GET", f"/v0/cases/{case_id}"), case_id)

    def trigger_case(self, ask: CaseTriggerAsk) -> CaseReceipt:
        """Call attention to an event. Again is safe: the same `source_ref` is the same signal."""
        return parse(CaseReceipt, self._send("POST", "/v0/cases", case_body(ask)).content)

    def add_to_case(self, case_id: str, ask: CaseEntryAsk) -> CaseReceipt:
        """Add an entry to a case. Again is safe: the same `source_ref` with the same content is the same entry."""
        return entry_of(self._send("POST", f"/v0/cases/{case_id}/entries", case_body(ask)), case_id)

    def assert_label(self, context_pins: ContextPins, case_id: str, label: LabelAsk, *, source_ref: str) -> CaseReceipt:
        """Assert a label of the event of a case. `problem` of the receipt: why it still waits for the label store."""
        body = label_body(context_pins, label, source_ref)
        return entry_of(self._send("POST", f"/v0/cases/{case_id}/entries", body), case_id)

    def actions(self, *, state: ActionState | None = None, limit: int | None = None, cursor: str | None = None) -> ActionList:
        """A page of actions, the newest first; `state`: those that stand there, UNKNOWN of which nobody knows."""
        path = path_with("/v0/actions", state=state, limit=limit, cursor=cursor)
        return parse(ActionList, self._send("GET", path).content)

    def action(self, idempotency_key: str) -> ActionRecord:
        """An action with its attempts and its outcome."""
        return action_of(self._send("GET", f"/v0/actions/{idempotency_key}"), idempotency_key)

    def settle_action(self, context_pins: ContextPins, idempotency_key: str, *, is_done: bool, reason: str) -> ActionRecord:
        """Say whether an action was done that is UNKNOWN, and how that was found out. Where it is settled already, by somebody
        else or by this request whose answer was lost, it is refused (ACTION_NOT_NOW), and `action` shows by whom.
        """
        body = settlement_body(context_pins, reason, is_done=is_done)
        path = f"/v0/actions/{idempotency_key}/settlement"
        return action_of(self._send("POST", path, body), idempotency_key)

    def append_labels(self, context_pins: ContextPins, assertions: Sequence[LabelAssertion]) -> LabelReceipt:
        """Append assertions about events of a run, all or none. Again is safe: one that is there stays as it is."""
        return parse(LabelReceipt, self._send("POST", "/v0/labels", labels_body(context_pins, assertions)).content)

    def health(self) -> Health:
        """The state of the plane, RED included."""
        return _health(self._send("GET", "/health", accepted_statuses=(200, 503)))

    def health_history(self, *, hours: int | None = None) -> HealthHistory:
        """Lag and freshness of the last hours (24 where it is not said): the worst of each span."""
        return parse(HealthHistory, self._send("GET", path_with("/v0/health_history", hours=hours)).content)

    def submit_intent(self, intent: Intent | Mapping[str, Any]) -> BuildRun:
        """The run of a build intent, given as a model or as plain data: queued, or as it stands if it was asked for before.

        Submitting again is safe: the same request is one run.
        """
        requested_key = None if isinstance(intent, Mapping) else request_id_of(intent)
        return run_of(self._send("POST", "/v0/build_intents", intent_body(intent)), requested_key)

    def build_run(self, run_key: str) -> BuildRun:
        """A run as it stands now: its state, why it was refused, or its outcome."""
        return run_of(self._send("GET", f"/v0/build_runs/{run_key}"), run_key)

    def cancel_build(self, run_key: str) -> BuildRun:
        """A run that ended by now: FAILED / CANCELLED, or as it had ended before. Asked for again, it is the same."""
        return run_of(self._send("POST", f"/v0/build_runs/{run_key}/cancellation", b"{}"), run_key)

    def apply_failures(self, *, after: str | None = None, limit: int | None = None, reason: str | None = None) -> ApplyFailures:
        """A page of the records that the live projection did not apply. `after`: PARTITION:OFFSET."""
        path = path_with("/v0/apply_failures", after=after, limit=limit, reason=reason)
        return parse(ApplyFailures, self._send("GET", path).content)

    def build_runs(self, *, state: str | None = None, limit: int | None = None, cursor: str | None = None) -> BuildList:
        """A page of builds of the run that is served, the newest first."""
        path = path_with("/v0/build_runs", state=state, limit=limit, cursor=cursor)
        return parse(BuildList, self._send("GET", path).content)

    def build_stages(self, run_key: str) -> BuildProgress:
        """A build, and every stage of it that ended."""
        return parse(BuildProgress, self._send("GET", f"/v0/build_runs/{run_key}/stages").content)

    def parity(self, *, limit: int | None = None, cursor: str | None = None) -> ParityList:
        """A page of comparisons of decisions with their rebuild. None in it: nothing was compared."""
        return parse(ParityList, self._send("GET", path_with("/v0/parity", limit=limit, cursor=cursor)).content)

    def parity_report(self, comparison_id: str, *, before: str | None = None) -> ParityReport:
        """A comparison by day and group. `before`: a day, of which the report has the days before."""
        path = path_with(f"/v0/parity/{comparison_id}", before=before)
        return parse(ParityReport, self._send("GET", path).content)

    def datasets(self, *, limit: int | None = None, cursor: str | None = None) -> DatasetList:
        """A page of published datasets of the run that is served."""
        return parse(DatasetList, self._send("GET", path_with("/v0/datasets", limit=limit, cursor=cursor)).content)

    def dataset(self, name: str, identity: str) -> PublishedDataset:
        """A published dataset with its manifest."""
        return parse(PublishedDataset, self._send("GET", path_with(f"/v0/datasets/{identity}", name=name)).content)

    def pack_operations(self, *, limit: int | None = None, cursor: str | None = None) -> PackOperations:
        """A page of the steps that put packs live or went back, the newest first."""
        path = path_with("/v0/pack_operations", limit=limit, cursor=cursor)
        return parse(PackOperations, self._send("GET", path).content)

    def _send(
        self, method: str, path: str, body: bytes | None = None, accepted_statuses: tuple[int, ...] = (200,)
    ) -> httpx.Response:
        def once() -> httpx.Response:
            try:
                response = self._http.request(method, path, content=body, headers=None if body is None else _JSON)
            except httpx.TransportError as error:
                raise ServiceUnreachable(f"{method} {path}: {type(error).__name__}") from error
            return _demand_status(response, accepted_statuses)

        retrying = Retrying(
            stop=stop_after_attempt(self._retries.attempts),
            wait=lambda state: self._retries.pause(state.attempt_number, self._chance()),
            retry=retry_if_exception(may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(once)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class AsyncOfpClient:
    """The same for an event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        token: Token | None = None,
        tls: ClientTls | None = None,
        timeout_seconds: float = 2.0,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._http = httpx.AsyncClient(**client_settings(base_url, token, timeout_seconds, tls), transport=transport)
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self._chance = chance

    async def get_features(
        self,
        *,
        context_pins: ContextPins,
        feature_keys: Keys,
        feature_groups: Groups,
        as_of_time_utc: str | datetime,
        request_context: Mapping[str, int | str] | None = None,
        at_least_basis: Sequence[Position] | None = None,
        request_id: str | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> ReceivedFeatures:
        """Features of entities at an instant; see `make_request` for the arguments."""
        return await self.ask(
            make_request(
                context_pins=context_pins,
                feature_keys=feature_keys,
                feature_groups=feature_groups,
                as_of_time_utc=as_of_time_utc,
                request_context=request_context,
                at_least_basis=at_least_basis,
                request_id=request_id,
                extensions=extensions,
            )
        )

    async def ask(self, request: GetFeaturesRequest) -> ReceivedFeatures:
        """The answer to a request made with `make_request`."""
        return features_of(await self._send("POST", "/v0/get_features", request_body(request)))

    async def get_snapshot(self, snapshot_hash: str) -> SnapshotRecord:
        """The record of a served snapshot, its hash recomputed."""
        return record_of(await self._send("GET", f"/v0/snapshots/{snapshot_hash}"), snapshot_hash)

    async def get_rebuilt_snapshot(self, snapshot_hash: str) -> RebuiltFeatureSnapshot:
        """A snapshot that a forensic rebuild gave, its hash recomputed."""
        return rebuilt_of(await self._send("GET", f"/v0/rebuilt_snapshots/{snapshot_hash}"), snapshot_hash)

    async def feature_groups(self) -> FeatureGroups:
        """The catalogue."""
        return parse(FeatureGroups, (await self._send("GET", "/v0/feature_groups")).content)

    async def explain(self, snapshot_hash: str, feature: str, *, key: str | None = None, group: str | None = None) -> Explanation:
        """A served value and the events in its windows. `key`: TYPE:ID and `group`: NAME:VERSION, where several are meant."""
        return parse(Explanation, (await self._send("GET", explanation_path(snapshot_hash, feature, key, group))).content)

    async def catalogue(self) -> Catalogue:
        """The definitions of the groups, and who reads them."""
        return parse(Catalogue, (await self._send("GET", "/v0/catalogue")).content)

    async def entity(self, key: FeatureKey | tuple[str, str], *, as_of_time_utc: str | datetime | None = None) -> EntityProfile:
        """The entity of a key at a time (default: now): canonical key, members, links and conflicts."""
        return parse(EntityProfile, (await self._send("GET", entity_path(key, as_of_time_utc))).content)

    async def record_decision(self, record: DecisionRecord) -> DecisionReceipt:
        """Record a decision on features that this service answered. Again is safe: the same content has the same receipt."""
        return receipt_of(await self._send("POST", "/v0/decisions", canonical_bytes(record.wire())), record)

    async def decision(self, decision_id: str) -> DecisionRecord:
        """A recorded decision."""
        return decision_of(await self._send("GET", f"/v0/decisions/{decision_id}"), decision_id)

    async def decisions(
        self,
        *,
        key: FeatureKey | tuple[str, str] | None = None,
        event_id: str | None = None,
        from_utc: str | datetime | None = None,
        to_utc: str | datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DecisionList:
        """A page of decisions, the latest first: about an entity, on an event, decided in `[from_utc, to_utc)`."""
        query = decision_query(key, event_id, from_utc, to_utc, limit, cursor)
        return parse(DecisionList, (await self._send("GET", f"/v0/decisions{query}")).content)

    async def decide(self, envelope: Mapping[str, Any]) -> DecisionRecord:
        """Send one event to the door (`base_url` is that of `ofp ingress serve`), and wait for the plane's decision on it.
        Again is safe: it is the same event, and the same decision.
        """
        return decided_of(await self._send("POST", "/v0/decide", envelope_body(envelope)), envelope)

    async def cases(self, *, state: CaseState | None = None, limit: int | None = None, cursor: str | None = None) -> CaseList:
        """A page of cases of a state (default: open), the most urgent first."""
        path = path_with("/v0/cases", state=state, limit=limit, cursor=cursor)
        return parse(CaseList, (await self._send("GET", path)).content)

    async def case(self, case_id: str) -> Case:
        """A case with its timeline."""
        return case_of(await self._send("GET", f"/v0/cases/{case_id}"), case_id)

    async def trigger_case(self, ask: CaseTriggerAsk) -> CaseReceipt:
        """Call attention to an event. Again is safe: the same `source_ref` is the same signal."""
        return parse(CaseReceipt, (await self._send("POST", "/v0/cases", case_body(ask))).content)

    async def add_to_case(self, case_id: str, ask: CaseEntryAsk) -> CaseReceipt:
        """Add an entry to a case. Again is safe: the same `source_ref` with the same content is the same entry."""
        return entry_of(await self._send("POST", f"/v0/cases/{case_id}/entries", case_body(ask)), case_id)

    async def assert_label(self, context_pins: ContextPins, case_id: str, label: LabelAsk, *, source_ref: str) -> CaseReceipt:
        """Assert a label of the event of a case. `problem` of the receipt: why it still waits for the label store."""
        body = label_body(context_pins, label, source_ref)
        return entry_of(await self._send("POST", f"/v0/cases/{case_id}/entries", body), case_id)

    async def actions(
        self, *, state: ActionState | None = None, limit: int | None = None, cursor: str | None = None
    ) -> ActionList:
        """A page of actions, the newest first; `state`: those that stand there, UNKNOWN of which nobody knows."""
        path = path_with("/v0/actions", state=state, limit=limit, cursor=cursor)
        return parse(ActionList, (await self._send("GET", path)).content)

    async def action(self, idempotency_key: str) -> ActionRecord:
        """An action with its attempts and its outcome."""
        return action_of(await self._send("GET", f"/v0/actions/{idempotency_key}"), idempotency_key)

    async def settle_action(self, context_pins: ContextPins, idempotency_key: str, *, is_done: bool, reason: str) -> ActionRecord:
        """Say whether an action was done that is UNKNOWN, and how that was found out. Where it is settled already, by somebody
        else or by this request whose answer was lost, it is refused (ACTION_NOT_NOW), and `action` shows by whom.
        """
        body = settlement_body(context_pins, reason, is_done=is_done)
        path = f"/v0/actions/{idempotency_key}/settlement"
        return action_of(await self._send("POST", path, body), idempotency_key)

    async def append_labels(self, context_pins: ContextPins, assertions: Sequence[LabelAssertion]) -> LabelReceipt:
        """Append assertions about events of a run, all or none. Again is safe: one that is there stays as it is."""
        return parse(LabelReceipt, (await self._send("POST", "/v0/labels", labels_body(context_pins, assertions))).content)

    async def health(self) -> Health:
        """The state of the plane, RED included."""
        return _health(await self._send("GET", "/health", accepted_statuses=(200, 503)))

    async def health_history(self, *, hours: int | None = None) -> HealthHistory:
        """Lag and freshness of the last hours (24 where it is not said): the worst of each span."""
        return parse(HealthHistory, (await self._send("GET", path_with("/v0/health_history", hours=hours))).content)

    async def submit_intent(self, intent: Intent | Mapping[str, Any]) -> BuildRun:
        """The run of a build intent, given as a model or as plain data: queued, or as it stands if it was asked for before.

        Submitting again is safe: the same request is one run.
        """
        requested_key = None if isinstance(intent, Mapping) else request_id_of(intent)
        return run_of(await self._send("POST", "/v0/build_intents", intent_body(intent)), requested_key)

    async def build_run(self, run_key: str) -> BuildRun:
        """A run as it stands now: its state, why it was refused, or its outcome."""
        return run_of(await self._send("GET", f"/v0/build_runs/{run_key}"), run_key)

    async def cancel_build(self, run_key: str) -> BuildRun:
        """A run that ended by now: FAILED / CANCELLED, or as it had ended before. Asked for again, it is the same."""
        return run_of(await self._send("POST", f"/v0/build_runs/{run_key}/cancellation", b"{}"), run_key)

    async def apply_failures(
        self, *, after: str | None = None, limit: int | None = None, reason: str | None = None
    ) -> ApplyFailures:
        """A page of the records that the live projection did not apply. `after`: PARTITION:OFFSET."""
        path = path_with("/v0/apply_failures", after=after, limit=limit, reason=reason)
        return parse(ApplyFailures, (await self._send("GET", path)).content)

    async def build_runs(self, *, state: str | None = None, limit: int | None = None, cursor: str | None = None) -> BuildList:
        """A page of builds of the run that is served, the newest first."""
        path = path_with("/v0/build_runs", state=state, limit=limit, cursor=cursor)
        return parse(BuildList, (await self._send("GET", path)).content)

    async def build_stages(self, run_key: str) -> BuildProgress:
        """A build, and every stage of it that ended."""
        return parse(BuildProgress, (await self._send("GET", f"/v0/build_runs/{run_key}/stages")).content)

    async def parity(self, *, limit: int | None = None, cursor: str | None = None) -> ParityList:
        """A page of comparisons of decisions with their rebuild. None in it: nothing was compared."""
        return parse(ParityList, (await self._send("GET", path_with("/v0/parity", limit=limit, cursor=cursor))).content)

    async def parity_report(self, comparison_id: str, *, before: str | None = None) -> ParityReport:
        """A comparison by day and group. `before`: a day, of which the report has the days before."""
        path = path_with(f"/v0/parity/{comparison_id}", before=before)
        return parse(ParityReport, (await self._send("GET", path)).content)

    async def datasets(self, *, limit: int | None = None, cursor: str | None = None) -> DatasetList:
        """A page of published datasets of the run that is served."""
        return parse(DatasetList, (await self._send("GET", path_with("/v0/datasets", limit=limit, cursor=cursor))).content)

    async def dataset(self, name: str, identity: str) -> PublishedDataset:
        """A published dataset with its manifest."""
        return parse(PublishedDataset, (await self._send("GET", path_with(f"/v0/datasets/{identity}", name=name))).content)

    async def pack_operations(self, *, limit: int | None = None, cursor: str | None = None) -> PackOperations:
        """A page of the steps that put packs live or went back, the newest first."""
        path = path_with("/v0/pack_operations", limit=limit, cursor=cursor)
        return parse(PackOperations, (await self._send("GET", path)).content)

    async def _send(
        self, method: str, path: str, body: bytes | None = None, accepted_statuses: tuple[int, ...] = (200,)
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            try:
                response = await self._http.request(method, path, content=body, headers=None if body is None else _JSON)
            except httpx.TransportError as error:
                raise ServiceUnreachable(f"{method} {path}: {type(error).__name__}") from error
            return _demand_status(response, accepted_statuses)

        def pause(state: RetryCallState) -> float:
            return self._retries.pause(state.attempt_number, self._chance())

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries.attempts),
            wait=pause,
            retry=retry_if_exception(may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(once)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()
