"""The routes that a port answers, by method and path, and the methods that a path takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ofp_platform.api.action_routes import ActionRoutes
from ofp_platform.api.build_routes import BuildRoutes
from ofp_platform.api.case_routes import CaseRoutes
from ofp_platform.api.console_files import ConsoleFiles
from ofp_platform.api.http_policy import HttpPolicy
from ofp_platform.api.operator_routes import OperatorRoutes
from ofp_platform.api.overview_routes import OverviewRoutes
from ofp_platform.api.posture_routes import PostureRoutes
from ofp_platform.api.record_routes import RecordRoutes
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
    CONSOLE,
    CONSOLE_FILE,
    DATASET,
    DATASETS,
    DECISION,
    DECISIONS,
    EXPLANATION,
    LABELS,
    PACK_OPERATIONS,
    PARITY,
    PARITY_REPORT,
    POSTURE,
    POSTURE_HOLD,
    POSTURE_RELEASE,
)
from ofp_platform.api.service import (
    ActionPort,
    BuildPort,
    CasePort,
    OperatorPort,
    OverviewPort,
    PosturePort,
    RecordPort,
    ServingPort,
)

Answer = Callable[[Request], Awaitable[Response]]
RouteTable = dict[tuple[str, str], Answer]
"""By method and path; a path with GET answers HEAD too."""


@dataclass(frozen=True)
class Ports:
    """Everything behind the service; `cases` and `actions` are None where it serves none."""

    serving: ServingPort
    builds: BuildPort
    operators: OperatorPort
    records: RecordPort
    overviews: OverviewPort
    posture: PosturePort
    cases: CasePort | None
    actions: ActionPort | None

    async def close(self) -> None:
        """Release what was taken, that of the service itself last."""
        for port in (self.builds, self.records, self.cases, self.actions, self.overviews, self.posture, self.serving):
            if port is not None:
                await port.close()


def routes_behind(ports: Ports, policy: HttpPolicy) -> RouteTable:
    """The routes of these ports."""
    timeout_seconds = policy.body_timeout_seconds
    builds = BuildRoutes(ports.builds, policy.max_intent_bytes, timeout_seconds)
    operators = OperatorRoutes(ports.serving, ports.operators)
    overviews = OverviewRoutes(ports.overviews)
    console_files = ConsoleFiles()
    posture = PostureRoutes(ports.posture, timeout_seconds)
    records = RecordRoutes(ports.records, policy.max_intent_bytes, timeout_seconds)
    cases = CaseRoutes(ports.cases, policy.max_body_bytes, timeout_seconds)
    actions = ActionRoutes(ports.actions, timeout_seconds)
    return {
        ("GET", EXPLANATION): operators.explanation,
        ("GET", APPLY_FAILURES): operators.failures,
        ("GET", BUILD_RUNS): overviews.builds,
        ("GET", BUILD_STAGES): overviews.build_stages,
        ("GET", PARITY): overviews.comparisons,
        ("GET", PARITY_REPORT): overviews.parity_report,
        ("GET", DATASETS): overviews.datasets,
        ("GET", DATASET): overviews.dataset,
        ("GET", PACK_OPERATIONS): overviews.pack_operations,
        ("GET", BUNDLES): overviews.bundles,
        ("GET", BUNDLES_IN_FORCE): overviews.bundles_in_force,
        ("GET", POSTURE): posture.show,
        ("GET", CONSOLE): console_files.send,
        ("GET", CONSOLE_FILE): console_files.send,
        ("GET", DECISIONS): records.list,
        ("GET", DECISION): records.show,
        ("GET", CASES): cases.list,
        ("GET", CASE): cases.show,
        ("GET", ACTIONS): actions.list,
        ("GET", ACTION): actions.show,
        ("GET", BUILD_RUN): builds.show,
        ("POST", BUILD_INTENTS): builds.submit,
        ("POST", BUILD_CANCELLATION): builds.cancel,
        ("POST", DECISIONS): records.record,
        ("POST", LABELS): records.append_labels,
        ("POST", CASES): cases.trigger,
        ("POST", CASE_ENTRIES): cases.add,
        ("POST", POSTURE_HOLD): posture.hold,
        ("POST", POSTURE_RELEASE): posture.release,
        ("POST", ACTION_SETTLEMENT): actions.settle,
    }


def methods_of(routes: Iterable[Route], path: str) -> list[str]:
    """The methods that a path takes, in the order of the alphabet; empty: there is no such path."""
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})
