"""Answers of the service, parsed and held against their hashes before a caller sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import orjson
from pydantic import PrivateAttr, ValidationError

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.loop.action import ActionRecord
from ofp_platform.vocabulary.loop.case_requests import Case, CaseReceipt
from ofp_platform.vocabulary.loop.decision_record import DecisionReceipt, DecisionRecord
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.offline.build_intent import request_id
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot
from ofp_platform.vocabulary.serving import (
    OFFLINE_CONTRACT_VERSION,
    ErrorResponse,
    GetFeaturesResponse,
    OfflineErrorResponse,
    SnapshotRecord,
)
from ofp_platform.vocabulary.snapshot_hash import snapshot_hash

HASH_HEADER = "ofp-snapshot-hash"
M = TypeVar("M", bound=Model)


class ServiceUnreachable(ConnectionError):
    """No answer of the contract came: the connection failed, or something in between answered instead."""


class AnswerNotTrusted(Exception):
    """An answer came that is not what the contract says, or whose hash does not fit; asking again would not help."""


class ReceivedFeatures(GetFeaturesResponse):
    """A GetFeaturesResponse together with the bytes it came in."""

    _body: bytes = PrivateAttr(default=b"")

    @property
    def body(self) -> bytes:
        """The response as received."""
        return self._body


def parse(model: type[M], body: bytes) -> M:
    """An object of the contract from its bytes.

    Raises:
        AnswerNotTrusted: it is not one; the text names the field, never a value.
    """
    try:
        read_json(body)
    except (NotJson, NotIJson) as error:
        raise AnswerNotTrusted(f"the answer is not a {model.__name__}: {error}") from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise AnswerNotTrusted(f"the answer is not a {model.__name__}: {where}: {first['type']}") from None


def refused(response: httpx.Response) -> Exception:
    """The exception for an answer other than 200: the error of the contract, where it is one."""
    return refusal_in(response.status_code, response.content)


def refusal_in(status: int, body: bytes) -> Exception:
    """As `refused`, of the status and the bytes of an answer."""
    try:
        content = orjson.loads(body)
        names_itself = content["kind"] == "error_response"
        is_offline = content.get("contract_version") == OFFLINE_CONTRACT_VERSION
    except (orjson.JSONDecodeError, KeyError, TypeError):
        names_itself = False
    if names_itself:
        try:
            wire = parse(OfflineErrorResponse if is_offline else ErrorResponse, body)
        except AnswerNotTrusted as error:
            return error
        return ContractError(wire.error_code, wire.reason, wire.message, context_pins=wire.context_pins)
    if status in (502, 503, 504):
        return ServiceUnreachable(f"something before the service answered {status}")
    return AnswerNotTrusted(f"status {status} without an error of the contract")


def features_of(response: httpx.Response) -> ReceivedFeatures:
    """The features of a 200 answer, the hash in its header held against the one in its body.

    Raises:
        AnswerNotTrusted: not a get_features_response, or the two hashes differ.
    """
    return features_in(response.content, response.headers.get(HASH_HEADER))


def features_in(body: bytes, header_hash: str | None) -> ReceivedFeatures:
    """As `features_of`, of the bytes of an answer and the hash in its header; None: it has none.

    Raises:
        AnswerNotTrusted: the same.
    """
    features = parse(ReceivedFeatures, body)
    features._body = body
    if header_hash != features.provenance.feature_snapshot_hash:
        raise AnswerNotTrusted(f"the header names the snapshot {header_hash}, the body another")
    return features


def record_of(response: httpx.Response, requested_hash: str) -> SnapshotRecord:
    """The record of a 200 answer, its hash recomputed.

    Raises:
        AnswerNotTrusted: not a record, or not of the snapshot that was asked for.
    """
    record = parse(SnapshotRecord, response.content)
    try:
        recomputed_hash = snapshot_hash(record.hashed)
    except TypeError:
        recomputed_hash = "a value outside the canonical profile"
    if not requested_hash == record.feature_snapshot_hash == recomputed_hash:
        raise AnswerNotTrusted(f"asked for snapshot {requested_hash}; what came has the hash {recomputed_hash}")
    return record


def rebuilt_of(response: httpx.Response, requested_hash: str) -> RebuiltFeatureSnapshot:
    """The rebuilt snapshot of a 200 answer; reading it recomputes its hash.

    Raises:
        AnswerNotTrusted: not a rebuilt snapshot, or not the one that was asked for.
    """
    rebuilt = parse(RebuiltFeatureSnapshot, response.content)
    if rebuilt.feature_snapshot_hash != requested_hash:
        raise AnswerNotTrusted(f"asked for snapshot {requested_hash}; what came has the hash {rebuilt.feature_snapshot_hash}")
    return rebuilt


def run_of(response: httpx.Response, requested_key: str | None = None) -> BuildRun:
    """The run of a 200 answer, its key recomputed from its intent. `asked`: the key it must have, where it is known before.

    Raises:
        AnswerNotTrusted: not a run, or not the one that was asked for.
    """
    run = parse(BuildRun, response.content)
    recomputed_key = request_id(run.intent)
    if not run.run_key == recomputed_key == (requested_key or recomputed_key):
        raise AnswerNotTrusted(
            f"asked for run {requested_key or recomputed_key}; what came is the run of request {recomputed_key}"
        )
    return run


def decision_of(response: httpx.Response, requested_id: str) -> DecisionRecord:
    """The decision of a 200 answer; reading it recomputes its id.

    Raises:
        AnswerNotTrusted: not a decision, or not the one that was asked for.
    """
    record = parse(DecisionRecord, response.content)
    if record.decision_id != requested_id:
        raise AnswerNotTrusted(f"asked for decision {requested_id}; what came is decision {record.decision_id}")
    return record


def receipt_of(response: httpx.Response, record: DecisionRecord) -> DecisionReceipt:
    """The receipt of a 200 answer, held against what was sent.

    Raises:
        AnswerNotTrusted: not a receipt, or one of other content.
    """
    receipt = parse(DecisionReceipt, response.content)
    if (receipt.decision_id, receipt.record_digest) != (record.decision_id, digest_of(record.wire())):
        raise AnswerNotTrusted(f"sent decision {record.decision_id}; the receipt is of other content")
    return receipt


def decided_of(response: httpx.Response, envelope: Mapping[str, Any]) -> DecisionRecord:
    """The decision of a 200 answer on the event that was sent; reading it recomputes its id.

    Raises:
        AnswerNotTrusted: not a decision, or on another event.
    """
    record = parse(DecisionRecord, response.content)
    event = envelope.get("event_type"), envelope.get("event_id")
    if (record.event_type, record.event_id) != event:
        raise AnswerNotTrusted(f"sent event {event[1]}; what came is the decision on {record.event_id}")
    return record


def case_of(response: httpx.Response, requested_id: str) -> Case:
    """The case of a 200 answer.

    Raises:
        AnswerNotTrusted: not a case, or not the one that was asked for.
    """
    case = parse(Case, response.content)
    if case.case_id != requested_id:
        raise AnswerNotTrusted(f"asked for case {requested_id}; what came is case {case.case_id}")
    return case


def entry_of(response: httpx.Response, requested_id: str) -> CaseReceipt:
    """The receipt of a 200 answer.

    Raises:
        AnswerNotTrusted: not a receipt, or of another case.
    """
    receipt = parse(CaseReceipt, response.content)
    if receipt.case_id != requested_id:
        raise AnswerNotTrusted(f"wrote to case {requested_id}; the receipt is of case {receipt.case_id}")
    return receipt


def action_of(response: httpx.Response, requested_key: str) -> ActionRecord:
    """The action of a 200 answer; reading it recomputes the key of its intent.

    Raises:
        AnswerNotTrusted: not an action, or not the one that was asked for.
    """
    record = parse(ActionRecord, response.content)
    if record.intent.idempotency_key != requested_key:
        raise AnswerNotTrusted(f"asked for action {requested_key}; what came is {record.intent.idempotency_key}")
    return record
