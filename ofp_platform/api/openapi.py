"""The OpenAPI 3.1 description: the contract's own schemas (both are JSON Schema 2020-12) and worked examples."""

from __future__ import annotations

import json
from typing import Any

from ofp_platform.api.action_examples import (
    action_error_examples,
    action_example,
    action_list_example,
    action_settlement_ask_example,
)
from ofp_platform.api.build_examples import build_error_examples, intent_example, rebuilt_example, run_example
from ofp_platform.api.case_examples import (
    case_entry_ask_example,
    case_error_examples,
    case_example,
    case_list_example,
    case_receipt_example,
    case_trigger_ask_example,
)
from ofp_platform.api.contract_files import (
    DIALECT,
    action_definitions,
    build_definitions,
    case_definitions,
    overview_definitions,
    record_definitions,
    serving_definitions,
)
from ofp_platform.api.examples import (
    apply_failures_example,
    catalogue_example,
    decision_example,
    entity_example,
    error_examples,
    explanation_example,
    feast_answer_example,
    feast_question_example,
    feature_groups_example,
    health_example,
    labels_example,
    request_example,
    response_example,
    snapshot_record_example,
)
from ofp_platform.api.live_example import LiveExample
from ofp_platform.api.overview_examples import (
    build_list_example,
    build_progress_example,
    bundle_history_example,
    bundles_in_force_example,
    dataset_list_example,
    health_history_example,
    pack_operations_example,
    parity_list_example,
    parity_report_example,
    published_dataset_example,
)
from ofp_platform.api.posture_examples import posture_hold_example, posture_release_example, posture_view_example
from ofp_platform.api.record_routes import MOST_DECISIONS
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
    DATASET,
    DATASETS,
    DECISION,
    DECISIONS,
    EXPLANATION,
    HEALTH_HISTORY,
    LABELS,
    PACK_OPERATIONS,
    PARITY,
    PARITY_REPORT,
    POSTURE,
    POSTURE_HOLD,
    POSTURE_RELEASE,
    Open,
    scope_of,
)
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.model import DIGEST_PATTERN
from ofp_platform.vocabulary.serving import OFFLINE_CONTRACT_VERSION

_STATUS_TEXT = {
    400: "The request is not valid",
    401: "No key that is valid",
    403: "The principal lacks the scope, or a page of another origin asks",
    404: "Not known here",
    405: "Another method is needed",
    408: "The body did not arrive in time, or is shorter than declared",
    409: "Something else is recorded under this id",
    413: "The body is too large",
    415: "The body is not called application/json",
    421: "The service is not known by that host",
    503: "Unavailable; the same request may succeed later",
}
_HASH_HEADER = {
    "ofp-snapshot-hash": {
        "description": "feature_snapshot_hash of the body",
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
    }
}


def _rewritten(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _rewritten(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_rewritten(item) for item in node]
    if isinstance(node, str) and node.startswith("#/$defs/"):
        return "#/components/schemas/" + node.removeprefix("#/$defs/")
    return node


def _content(schema: str, example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}


def _responses(
    ok: dict[str, Any], *statuses: int, errors: dict[int, dict[str, Any]] | None = None, schema: str = "ErrorResponse"
) -> dict[str, Any]:
    examples = error_examples() if errors is None else errors
    error_responses: dict[str, Any] = {}
    also = {401: (403, 421), 413: (415,)}  # what is refused in the same place
    for status in sorted({*statuses, *(other for near in statuses for other in also.get(near, ()))}):
        error_responses[str(status)] = {
            "description": _STATUS_TEXT[status],
            "content": _content(schema, examples[status]),
        }
        if status == 503:
            error_responses["503"]["headers"] = {"retry-after": {"description": "seconds", "schema": {"type": "integer"}}}
    return {"200": ok} | error_responses


def _query(name: str, example: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": {"type": "string", "maxLength": 300}, "example": example}


def _paths(live: LiveExample | None) -> dict[str, Any]:
    request, response = request_example(), response_example()
    snapshot_hash = snapshot_record_example()["feature_snapshot_hash"]
    if live is not None:
        request, response, snapshot_hash = live.request, live.response, live.snapshot_hash
    health = _content("Health", health_example())
    hash_parameter = {
        "name": "snapshot_hash",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
        "example": snapshot_hash,
    }
    return {
        "/v0/get_features": {
            "post": {
                "operationId": "get_features",
                "summary": "Features of entities at an instant",
                "description": "One consistent answer: one basis for all keys and groups. The same request on the same basis has"
                " the same hash for good. A key without data is answered (warning NO_DATA), never refused.",
                "requestBody": {"required": True, "content": _content("GetFeaturesRequest", request)},
                "responses": _responses(
                    {
                        "description": "The snapshot and its provenance",
                        "headers": _HASH_HEADER,
                        "content": _content("GetFeaturesResponse", response),
                    },
                    400,
                    401,
                    404,
                    405,
                    408,
                    413,
                    503,
                ),
            }
        },
        "/v0/snapshots/{snapshot_hash}": {
            "get": {
                "operationId": "get_snapshot",
                "summary": "A served snapshot by its hash",
                "description": "What the hash is over, verified against it before it is sent.",
                "parameters": [hash_parameter],
                "responses": _responses(
                    {
                        "description": "The record",
                        "headers": _HASH_HEADER,
                        "content": _content("SnapshotRecord", snapshot_record_example()),
                    },
                    400,
                    401,
                    404,
                    503,
                ),
            }
        },
        "/v0/rebuilt_snapshots/{snapshot_hash}": {
            "get": {
                "operationId": "get_rebuilt_snapshot",
                "summary": "What a forensic rebuild gave, by its hash",
                "description": "Stored by a build of the intent forensic_rebuild: question, basis, and what the hash is over.",
                "parameters": [hash_parameter],
                "responses": _responses(
                    {
                        "description": "The rebuild",
                        "headers": _HASH_HEADER,
                        "content": _content("RebuiltFeatureSnapshot", rebuilt_example()),
                    },
                    400,
                    401,
                    404,
                    503,
                ),
            }
        },
        APPLY_FAILURES: {
            "get": {
                "operationId": "apply_failures",
                "summary": "Records that the live projection did not apply",
                "description": "Position, time, reason and the field at fault, in the order of the log; no content.",
                "parameters": [_query("after", "0002:51232"), _query("limit", "50"), _query("reason", "MISSING_KEY")],
                "responses": _responses(
                    {"description": "A page", "content": _content("ApplyFailures", apply_failures_example())}, 400, 401, 404, 503
                ),
            }
        },
        EXPLANATION: {
            "get": {
                "operationId": "explain",
                "summary": "The events behind one served value",
                "description": "Rebuilds the snapshot from the log, and lists the events in the windows of one feature: where"
                " they stand, never what is in them. One question at a time is worked on.",
                "parameters": [
                    hash_parameter,
                    _query("feature", "sum_amount_30d", required=True),
                    _query("key", "account:acc-000117"),
                    _query("group", "account_activity:v1"),
                ],
                "responses": _responses(
                    {"description": "The value and its windows", "content": _content("Explanation", explanation_example())},
                    400,
                    401,
                    404,
                    503,
                ),
            }
        },
        "/v0/feature_groups": {
            "get": {
                "operationId": "feature_groups",
                "summary": "The groups that can be asked for",
                "responses": _responses(
                    {"description": "The catalogue", "content": _content("FeatureGroups", feature_groups_example())},
                    401,
                    503,
                ),
            }
        },
        "/v0/catalogue": {
            "get": {
                "operationId": "catalogue",
                "summary": "Definitions of the groups, and who reads them",
                "description": "Aggregation, window and type of each feature; descriptions, owners and tags; published datasets,"
                " models trained on them, and rules of the newest decisions.",
                "responses": _responses(
                    {"description": "The catalogue", "content": _content("Catalogue", catalogue_example())},
                    401,
                    404,
                    503,
                ),
            }
        },
        "/v0/entity": {
            "get": {
                "operationId": "entity",
                "summary": "The entity of a key at a time",
                "description": "Its canonical key, its members, the links of the key, and links that contradict each other, by"
                " the newest version of the identity graph.",
                "parameters": [
                    {"name": "key_type", "in": "query", "required": True, "schema": {"enum": list(KeyType)}, "example": "device"},
                    {
                        "name": "key_id",
                        "in": "query",
                        "required": True,
                        "schema": {"type": "string"},
                        "example": "device-0000001",
                    },
                    {
                        "name": "as_of_time_utc",
                        "in": "query",
                        "description": "default: the moment when it arrived",
                        "schema": {"type": "string", "format": "date-time"},
                    },
                ],
                "responses": _responses(
                    {"description": "The entity", "content": _content("EntityProfile", entity_example())},
                    400,
                    401,
                    404,
                    503,
                ),
            }
        },
        "/get-online-features": {
            "post": {
                "operationId": "get_online_features",
                "summary": "Features in the shape of Feast's feature server",
                "description": "All rows are one question, with one snapshot hash. Without as_of_time_utc it is asked as of the"
                " moment when it arrived; the answer says which.",
                "requestBody": {"required": True, "content": _content("FeastQuestion", feast_question_example())},
                "responses": _responses(
                    {
                        "description": "Columns of entities and features, a row each",
                        "headers": _HASH_HEADER,
                        "content": _content("FeastAnswer", feast_answer_example()),
                    },
                    400,
                    401,
                    404,
                    405,
                    408,
                    413,
                    503,
                ),
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "GREEN or AMBER: 200; RED: 503",
                "responses": {
                    "200": {"description": "GREEN or AMBER", "content": health},
                    "503": {
                        "description": "RED, or the state cannot be read (an error)",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "oneOf": [
                                        {"$ref": "#/components/schemas/Health"},
                                        {"$ref": "#/components/schemas/ErrorResponse"},
                                    ]
                                }
                            }
                        },
                    },
                },
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Counters in Prometheus text form",
                "responses": _responses(
                    {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}, 401, 503
                ),
            }
        },
    }


def _build_paths(live: LiveExample | None) -> dict[str, Any]:
    intent = intent_example() if live is None else live.intent()
    run, errors = run_example(intent), build_error_examples()
    wrong_key = invalid(Reason.INVALID_FIELD, "a run key is 64 lower-case hex digits").wire(OFFLINE_CONTRACT_VERSION)
    key_parameter = {
        "name": "run_key",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
        "example": run["run_key"],
    }
    answer = {"description": "The run, as it stands now", "content": _content("BuildRun", run)}
    return {
        BUILD_INTENTS: {
            "post": {
                "operationId": "submit_intent",
                "summary": "Ask the offline plane for a build",
                "description": "Queues the intent for the builder. The same request is one run with one outcome, however often it"
                " is submitted.",
                "requestBody": {"required": True, "content": _content("BuildIntent", intent)},
                "responses": _responses(answer, 400, 401, 405, 408, 413, 503, errors=errors, schema="OfflineErrorResponse"),
            }
        },
        BUILD_CANCELLATION: {
            "post": {
                "operationId": "cancel_build",
                "summary": "Cancel a build",
                "description": "Ends a run that waits, runs or is to be published, as FAILED / CANCELLED. One that ended stays as"
                " it is, so the request may be sent again.",
                "parameters": [key_parameter],
                "responses": _responses(
                    answer,
                    400,
                    401,
                    404,
                    405,
                    503,
                    errors=errors | {400: wrong_key},
                    schema="OfflineErrorResponse",
                ),
            }
        },
        BUILD_RUN: {
            "get": {
                "operationId": "build_run",
                "summary": "What became of a build",
                "description": "Its state, why it was refused, or what it gave.",
                "parameters": [key_parameter],
                "responses": _responses(
                    answer,
                    400,
                    401,
                    404,
                    503,
                    errors=errors | {400: wrong_key},
                    schema="OfflineErrorResponse",
                ),
            }
        },
    }


def _record_paths() -> dict[str, Any]:
    decision = decision_example()
    receipt = {
        "kind": "df_decision_receipt",
        "contract_version": "v0",
        "decision_id": decision["decision_id"],
        "record_digest": digest_of(decision),
        "submitted_by": "decision-service",
    }
    page = {"kind": "df_decision_list", "contract_version": "v0", "decisions": [decision], "next_cursor": None}
    labels = {"kind": "label_receipt", "contract_version": "v0", "new_count": 1, "known_count": 0}
    times = "RFC 3339 in UTC with Z; decided in [from_utc, to_utc)"
    queries = {
        "key_type": ({"type": "string"}, "with key_id: decisions whose features are of this entity, among others"),
        "key_id": ({"type": "string"}, "with key_type"),
        "event_id": ({"type": "string"}, "decisions on this event"),
        "from_utc": ({"type": "string"}, times),
        "to_utc": ({"type": "string"}, times),
        "limit": ({"type": "integer", "minimum": 1, "maximum": MOST_DECISIONS}, "how many; 50 where it is not said"),
        "cursor": ({"type": "string"}, "next_cursor of the page before"),
    }
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": words}
        for name, (schema, words) in queries.items()
    ]
    id_parameter = {
        "name": "decision_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
        "example": decision["decision_id"],
    }
    return {
        DECISIONS: {
            "get": {
                "operationId": "decisions",
                "summary": "Recorded decisions, the latest first",
                "description": "Of the run that is served: about an entity, on an event, decided in a span of time.",
                "parameters": parameters,
                "responses": _responses(
                    {"description": "A page of them", "content": _content("DecisionList", page)}, 400, 401, 404, 503
                ),
            },
            "post": {
                "operationId": "record_decision",
                "summary": "Record a decision",
                "description": "Its question, basis and pack are those of the snapshot that it names; it is an anchor of parity"
                " from then on. The same content again has the same receipt; other content for an event that was decided on is"
                " refused.",
                "requestBody": {"required": True, "content": _content("DecisionRecord", decision)},
                "responses": _responses(
                    {"description": "It is recorded", "content": _content("DecisionReceipt", receipt)},
                    400,
                    401,
                    404,
                    405,
                    408,
                    409,
                    413,
                    503,
                ),
            },
        },
        DECISION: {
            "get": {
                "operationId": "decision",
                "summary": "A recorded decision by its id",
                "parameters": [id_parameter],
                "responses": _responses(
                    {"description": "The record", "content": _content("DecisionRecord", decision)}, 400, 401, 404, 503
                ),
            }
        },
        LABELS: {
            "post": {
                "operationId": "append_labels",
                "summary": "Say what became of events",
                "description": "All assertions are appended, or none. One that is there already stays as it is. None counts as"
                " observed before the service took it.",
                "requestBody": {"required": True, "content": _content("LabelAssertions", labels_example())},
                "responses": _responses(
                    {"description": "They are appended", "content": _content("LabelReceipt", labels)},
                    400,
                    401,
                    404,
                    405,
                    408,
                    413,
                    503,
                ),
            }
        },
    }


def _case_paths() -> dict[str, Any]:
    errors = error_examples() | case_error_examples()
    case = case_example()
    id_parameter = {
        "name": "case_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
        "example": case["case_id"],
    }
    receipt = {"description": "The entry that stands", "content": _content("CaseReceipt", case_receipt_example())}
    return {
        CASES: {
            "get": {
                "operationId": "cases",
                "summary": "Cases, the most urgent first",
                "description": "Of the run that is served. Conflicts are entries that came again with other content.",
                "parameters": [
                    _query("state", "OPEN"),
                    _query("limit", "50"),
                    _query("cursor", f"2~1774958410000000~{'0' * 64}"),
                ],
                "responses": _responses(
                    {"description": "A page of them", "content": _content("CaseList", case_list_example())}, 400, 401, 404, 503
                ),
            },
            "post": {
                "operationId": "trigger_case",
                "summary": "Call attention to an event",
                "description": "Opens the case of the event, or adds a trigger to it. The same source_ref again is the same"
                " signal.",
                "requestBody": {"required": True, "content": _content("CaseTriggerAsk", case_trigger_ask_example())},
                "responses": _responses(receipt, 400, 401, 404, 405, 408, 409, 413, 503, errors=errors),
            },
        },
        CASE: {
            "get": {
                "operationId": "case",
                "summary": "One case with its timeline",
                "description": "Evidence by reference: decision, snapshot, positions in the log.",
                "parameters": [id_parameter],
                "responses": _responses(
                    {"description": "The case", "content": _content("Case", case)}, 400, 401, 404, 503, errors=errors
                ),
            }
        },
        CASE_ENTRIES: {
            "post": {
                "operationId": "add_case_entry",
                "summary": "Add to a case: a note, an action, a label, its end",
                "description": "A label is pending until the label store has it; problem says why it still is. The same"
                " source_ref again, with the same content, is the same entry.",
                "parameters": [id_parameter],
                "requestBody": {"required": True, "content": _content("CaseEntryAsk", case_entry_ask_example())},
                "responses": _responses(receipt, 400, 401, 404, 405, 408, 409, 413, 503, errors=errors),
            }
        },
    }


def _overview_paths() -> dict[str, Any]:
    report, dataset = parity_report_example(), published_dataset_example()

    def read(
        operation_id: str, summary: str, words: str, schema: str, example: dict[str, Any], *parameters: dict[str, Any],
        is_offline: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        refusals: dict[str, Any] = {"errors": build_error_examples(), "schema": "OfflineErrorResponse"} if is_offline else {}
        answer = {"description": "As it stands now", "content": _content(schema, example)}
        return {
            "get": {
                "operationId": operation_id,
                "summary": summary,
                "description": words,
                "parameters": list(parameters),
                "responses": _responses(answer, 400, 401, 404, 503, **refusals),
            }
        }

    def digest(name: str, example: str) -> dict[str, Any]:
        schema = {"type": "string", "pattern": DIGEST_PATTERN}
        return {"name": name, "in": "path", "required": True, "schema": schema, "example": example}

    page = _query("limit", "20"), {**_query("cursor", ""), "description": "next_cursor of the page before"}
    del page[1]["example"]
    build = build_progress_example()
    return {
        BUILD_RUNS: read(
            "build_runs",
            "Builds, the newest first",
            "Of the run that is served: state, attempts, why one failed, rows and bytes as estimated, the last stage that ended.",
            "BuildList",
            build_list_example(),
            _query("state", "RUNNING"),
            *page,
            is_offline=True,
        ),
        BUILD_STAGES: read(
            "build_stages",
            "How far a build is",
            "Every stage of every attempt that ended, in order.",
            "BuildProgress",
            build,
            digest("run_key", build["build"]["run_key"]),
            is_offline=True,
        ),
        PARITY: read(
            "parity",
            "Comparisons of decisions with their rebuild",
            "Of the run that is served, those of the newest decisions first. An empty list says that nothing was compared.",
            "ParityList",
            parity_list_example(),
            *page,
        ),
        PARITY_REPORT: read(
            "parity_report",
            "A comparison by day and group",
            "Rates of at most 31 days, the newest first; why some could not be compared; the earliest mismatches; what late"
            " events would have changed.",
            "ParityReport",
            report,
            digest("comparison_id", report["comparison"]["comparison_id"]),
            _query("before", "2026-04-01"),
        ),
        DATASETS: read(
            "datasets",
            "Published datasets",
            "Of the run that is served, by name and identity, each manifest held against what index and builds recorded. A page"
            " may have fewer than `limit` and still a next one.",
            "DatasetList",
            dataset_list_example(),
            *page,
        ),
        DATASET: read(
            "dataset",
            "A published dataset with its manifest",
            "The data files are not read for it: `ofp dataset verify` does.",
            "PublishedDataset",
            dataset,
            digest("dataset_identity", dataset["entry"]["dataset_identity"]),
            _query("name", dataset["entry"]["dataset_name"], required=True),
        ),
        HEALTH_HISTORY: read(
            "health_history",
            "Lag and freshness of the last day",
            "The worst of each span, by whichever worker; kept over a restart. A span that nobody observed has nulls.",
            "HealthHistory",
            health_history_example(),
            _query("hours", "24"),
        ),
        PACK_OPERATIONS: read(
            "pack_operations",
            "Operations that put packs live, or went back",
            "The steps of `ofp apply` and `ofp rollback`, the newest first: who, when, why, what was compared, at which basis.",
            "PackOperations",
            pack_operations_example(),
            *page,
        ),
        BUNDLES: read(
            "bundles",
            "The steps of bundles",
            "What was published, approved, put in force, rolled back and retired of the run that is served, the newest first:"
            " by whom, when, why, and where control says it.",
            "BundleHistory",
            bundle_history_example(),
            *page,
        ),
        BUNDLES_IN_FORCE: read(
            "bundles_in_force",
            "What is in force",
            "In each scope (environment, mode, slot) of the run that is served: now; behind the step `sequence`; at `at_utc`.",
            "BundlesInForce",
            bundles_in_force_example(),
            _query("sequence", "2"),
            _query("at_utc", "2026-03-31T11:20:00Z"),
        ),
    }


def _posture_paths() -> dict[str, Any]:
    view = {"description": "The posture, as it stands behind it", "content": _content("PostureView", posture_view_example())}

    def change(operation_id: str, summary: str, words: str, schema: str, example: dict[str, Any]) -> dict[str, Any]:
        return {
            "post": {
                "operationId": operation_id,
                "summary": summary,
                "description": words,
                "requestBody": {"required": True, "content": _content(schema, example)},
                "responses": _responses(view, 400, 401, 404, 405, 408, 413, 503),
            }
        }

    return {
        POSTURE: {
            "get": {
                "operationId": "posture",
                "summary": "The mode in force of who decides",
                "description": "With the newest changes, the newest first: who, when, why, and the signals. Where nobody ever"
                " said anything, FAIL_CLOSED is in force.",
                "responses": _responses(view, 401, 404, 503),
            }
        },
        POSTURE_HOLD: change(
            "hold_posture",
            "Hold a mode: the kill switch",
            "Puts a mode in force, whatever signals say, until it is released. When it answers, no decision made under the former"
            " mode can be committed any more. Again with the same reason, nothing happens.",
            "PostureHold",
            posture_hold_example(),
        ),
        POSTURE_RELEASE: change(
            "release_posture",
            "Release a mode that is held",
            "Lets signals change the mode again, which stays until they do. Where nobody holds it, nothing happens.",
            "PostureRelease",
            posture_release_example(),
        ),
    }


def _action_paths() -> dict[str, Any]:
    errors, action = error_examples() | action_error_examples(), action_example()
    key_parameter = {
        "name": "idempotency_key",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": DIGEST_PATTERN},
        "example": action["intent"]["idempotency_key"],
    }
    page = {"description": "A page of them", "content": _content("ActionList", action_list_example())}
    shown = {"description": "The action as it stands now", "content": _content("ActionRecord", action)}
    return {
        ACTIONS: {
            "get": {
                "operationId": "actions",
                "summary": "Actions, the newest first",
                "description": "Of the run that is served, each with its attempts and its outcome. state=UNKNOWN lists those of"
                " which nobody knows whether they were done.",
                "parameters": [_query("state", "UNKNOWN"), _query("limit", "50"), _query("cursor", "41")],
                "responses": _responses(page, 400, 401, 404, 503),
            }
        },
        ACTION: {
            "get": {
                "operationId": "action",
                "summary": "One action with its attempts and its outcome",
                "description": "By the idempotency key of its intent.",
                "parameters": [key_parameter],
                "responses": _responses(shown, 400, 401, 404, 503, errors=errors),
            }
        },
        ACTION_SETTLEMENT: {
            "post": {
                "operationId": "settle_action",
                "summary": "Say whether an action was done that is unknown",
                "description": "Done, and it is EXECUTED; not done, and it is tried again: find out first. Who says so is the"
                " principal, and a governance fact.",
                "parameters": [key_parameter],
                "requestBody": {
                    "required": True,
                    "content": _content("ActionSettlementAsk", action_settlement_ask_example()),
                },
                "responses": _responses(shown, 400, 401, 404, 405, 408, 409, 413, 503, errors=errors),
            }
        },
    }


def _with_scope(path: str, item: dict[str, Any]) -> dict[str, Any]:
    """The operations of a path with the scope that they demand."""

    def security(method: str) -> list[dict[str, list[str]]]:
        scope = scope_of(path, method.upper())
        return [] if isinstance(scope, Open) else [{"bearer": [scope.value]}]

    return {method: operation | {"security": security(method)} for method, operation in item.items()}


def _all_paths(live: LiveExample | None) -> dict[str, Any]:
    loop_paths = _case_paths() | _action_paths() | _posture_paths()
    return _paths(live) | _record_paths() | _build_paths(live) | _overview_paths() | loop_paths


def openapi(live: LiveExample | None = None) -> dict[str, Any]:
    """The whole description; with `live`, the request, its answer and the hash are of the service that shows it."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "OFP: the online feature plane",
            "version": "v0",
            "description": "Deterministic feature snapshots with their provenance. Every refusal is an error_response with a"
            " reason from a closed list; exactly the UNAVAILABLE ones may be retried.",
        },
        "servers": [{"url": "/"}],
        "paths": {path: _with_scope(path, item) for path, item in _all_paths(live).items()},
        "components": {
            "schemas": _rewritten(
                serving_definitions()
                | build_definitions()
                | record_definitions()
                | overview_definitions()
                | case_definitions()
                | action_definitions()
            ),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def openapi_bytes(live: LiveExample | None = None) -> bytes:
    """The description as JSON."""
    return json.dumps(openapi(live), indent=1, ensure_ascii=False).encode()
