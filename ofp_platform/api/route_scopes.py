"""Which scope each route demands: the one place. A route that does not stand here cannot be built."""

from __future__ import annotations

from enum import Enum

from ofp_platform.api.principals import Scope

GET_FEATURES = "/v0/get_features"
SNAPSHOT = "/v0/snapshots/{snapshot_hash}"
REBUILT_SNAPSHOT = "/v0/rebuilt_snapshots/{snapshot_hash}"
FEATURE_GROUPS = "/v0/feature_groups"
CATALOGUE = "/v0/catalogue"
ENTITY = "/v0/entity"
FEAST_FEATURES = "/get-online-features"
BUILD_INTENTS = "/v0/build_intents"
BUILD_RUN = "/v0/build_runs/{run_key}"
BUILD_CANCELLATION = "/v0/build_runs/{run_key}/cancellation"
BUILD_RUNS = "/v0/build_runs"
BUILD_STAGES = "/v0/build_runs/{run_key}/stages"
PARITY = "/v0/parity"
PARITY_REPORT = "/v0/parity/{comparison_id}"
DATASETS = "/v0/datasets"
DATASET = "/v0/datasets/{dataset_identity}"
HEALTH_HISTORY = "/v0/health_history"
PACK_OPERATIONS = "/v0/pack_operations"
BUNDLES = "/v0/bundles"
BUNDLES_IN_FORCE = "/v0/bundles/in-force"
POSTURE = "/v0/posture"
POSTURE_HOLD = "/v0/posture/hold"
POSTURE_RELEASE = "/v0/posture/release"
EXPLANATION = "/v0/snapshots/{snapshot_hash}/explanation"
APPLY_FAILURES = "/v0/apply_failures"
CONSOLE = "/console"
CONSOLE_FILE = "/console/{name}"
DECISIONS = "/v0/decisions"
DECISION = "/v0/decisions/{decision_id}"
LABELS = "/v0/labels"
CASES = "/v0/cases"
CASE = "/v0/cases/{case_id}"
CASE_ENTRIES = "/v0/cases/{case_id}/entries"
ACTIONS = "/v0/actions"
ACTION = "/v0/actions/{idempotency_key}"
ACTION_SETTLEMENT = "/v0/actions/{idempotency_key}/settlement"
HEALTH = "/health"
METRICS = "/metrics"
OPENAPI = "/openapi.json"
DOCS = "/docs"


class Open(Enum):
    """Routes that a browser or a load balancer needs before anybody has a key; none of them shows data."""

    OPEN = "open"


SCOPES: dict[str, Scope | Open] = {
    GET_FEATURES: Scope.FEATURES_READ,
    FEATURE_GROUPS: Scope.FEATURES_READ,
    CATALOGUE: Scope.FEATURES_READ,
    ENTITY: Scope.FEATURES_READ,
    FEAST_FEATURES: Scope.FEATURES_READ,
    SNAPSHOT: Scope.SNAPSHOTS_READ,
    REBUILT_SNAPSHOT: Scope.SNAPSHOTS_READ,
    BUILD_INTENTS: Scope.BUILDS_SUBMIT,
    BUILD_RUN: Scope.BUILDS_SUBMIT,
    BUILD_CANCELLATION: Scope.BUILDS_SUBMIT,
    EXPLANATION: Scope.SNAPSHOTS_READ,
    DECISIONS: Scope.SNAPSHOTS_READ,
    DECISION: Scope.SNAPSHOTS_READ,
    LABELS: Scope.EVENTS_WRITE,
    CASES: Scope.INVESTIGATE,
    CASE: Scope.INVESTIGATE,
    CASE_ENTRIES: Scope.INVESTIGATE,
    APPLY_FAILURES: Scope.OPERATE,
    BUILD_RUNS: Scope.OPERATE,
    BUILD_STAGES: Scope.OPERATE,
    PARITY: Scope.SNAPSHOTS_READ,
    PARITY_REPORT: Scope.SNAPSHOTS_READ,
    DATASETS: Scope.SNAPSHOTS_READ,
    DATASET: Scope.SNAPSHOTS_READ,
    BUNDLES: Scope.SNAPSHOTS_READ,
    BUNDLES_IN_FORCE: Scope.SNAPSHOTS_READ,
    HEALTH_HISTORY: Scope.OPERATE,
    PACK_OPERATIONS: Scope.OPERATE,
    POSTURE: Scope.OPERATE,
    POSTURE_HOLD: Scope.OPERATE,
    POSTURE_RELEASE: Scope.OPERATE,
    ACTIONS: Scope.OPERATE,
    ACTION: Scope.OPERATE,
    ACTION_SETTLEMENT: Scope.OPERATE,
    METRICS: Scope.METRICS,
    HEALTH: Open.OPEN,
    OPENAPI: Open.OPEN,
    DOCS: Open.OPEN,
    CONSOLE: Open.OPEN,
    CONSOLE_FILE: Open.OPEN,
}
SCOPES_OF_POST: dict[str, Scope] = {DECISIONS: Scope.DECISIONS_WRITE}
"""Where a POST demands another scope than a GET of the same path."""


def scope_of(path: str, method: str) -> Scope | Open:
    """The scope that a method of a path demands."""
    return SCOPES_OF_POST.get(path, SCOPES[path]) if method == "POST" else SCOPES[path]
