"""The ports of the HTTP service to each plane, so that the service can be tested without a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ofp_platform.storage.decision_records import DecisionFilter
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.decision_record import DecisionReceipt
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.serving import Health

MayRead = Callable[[ContextPins], bool]
"""Whether whoever asks may read a run. What is of another run is as if it did not exist."""


class ServedAnswer(Protocol):
    """An answer to get_features: `body`, the canonical bytes of the response, and `hash`, its snapshot hash (hex)."""

    @property
    def body(self) -> bytes: ...

    @property
    def hash(self) -> str: ...


class ServingPort(Protocol):
    """The plane behind the service. Every refusal is a ContractError; all methods run on the service's event loop."""

    async def open(self) -> None:
        """Connect to everything needed; called once, before the first request.

        Raises:
            Exception: the service cannot start; the text is shown to the operator.
        """

    async def close(self) -> None:
        """Release what `open` took; called once, after the last request."""

    def answer(self, body: bytes) -> ServedAnswer | Awaitable[ServedAnswer]:
        """Answer the bytes of a get_features request (at most `max_body_bytes` long; not checked otherwise).

        At once where nothing has to be waited for, else by an awaitable.
        """
        ...

    def refuse_run(self, body: bytes) -> ContractError:
        """The refusal of a get_features request by somebody who may not read the run that is served: as if it were not.

        Raises:
            ContractError: it would be refused whatever the run.
        """
        ...

    async def snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        """JSON of the SnapshotRecord under a hash (64 hex digits), verified against it."""
        ...

    async def rebuilt_snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        """JSON of the RebuiltFeatureSnapshot of a hash (64 hex digits), verified against it.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT; SNAPSHOT_CORRUPT; STORE_DOWN.
        """
        ...

    async def feature_groups(self) -> bytes:
        """JSON of FeatureGroups."""
        ...

    async def catalogue(self) -> bytes:
        """JSON of Catalogue.

        Raises:
            ContractError: UNKNOWN_RUN; STORE_DOWN.
        """
        ...

    async def entity(self, key: FeatureKey, as_of: int) -> bytes:
        """JSON of EntityProfile: the entity of a key at a time, microseconds, by the newest version of the graph.

        Raises:
            ContractError: UNKNOWN_RUN; IEG_DOWN; TOO_MANY_MEMBERS; STORE_DOWN.
        """
        ...

    async def health(self) -> Health:
        """The state of the plane now."""
        ...

    def metrics(self) -> bytes:
        """The plane's own counters in Prometheus text form."""
        ...


class OperatorPort(Protocol):
    """Everything else that is read of the plane, for whoever looks after it. Every refusal is a ContractError."""

    async def failures(self, after: tuple[str, str] | None, limit: int, reason: str | None) -> bytes:
        """JSON of ApplyFailures of the live projection: at most `limit` records behind the one at `after`.

        Raises:
            ContractError: UNKNOWN_RUN; STORE_DOWN; OVERLOADED.
        """
        ...

    async def explanation(self, snapshot_hash: str, feature: str, key: str | None, group: str | None) -> bytes:
        """JSON of the Explanation of a value of a snapshot that the caller may read. `key`: TYPE:ID; `group`: NAME:VERSION.

        Raises:
            ContractError: INVALID_FIELD, no such value; SNAPSHOT_CORRUPT; BASIS_LOST; FORBIDDEN; STORE_DOWN; OVERLOADED.
        """
        ...


class OverviewPort(Protocol):
    """Lists of what was compared, built, published and put live of the run that is served. Every refusal is a ContractError.

    Each method raises INVALID_FIELD for a cursor that is none of its own, STORE_DOWN and OVERLOADED; one that is asked for a
    thing by its name, that it is not known: so to whoever may not read the run, whatever there is.
    """

    async def builds(self, limit: int, state: RunState | None, cursor: str | None) -> bytes:
        """JSON of BuildList."""
        ...

    async def build_stages(self, run_key: str, may_read: MayRead) -> bytes:
        """JSON of BuildProgress of the build under a key (64 hex digits)."""
        ...

    async def comparisons(self, limit: int, cursor: str | None) -> bytes:
        """JSON of ParityList."""
        ...

    async def parity_report(self, comparison_id: str, before: str | None, may_read: MayRead) -> bytes:
        """JSON of ParityReport of a comparison (64 hex digits), of days before `before` (YYYY-MM-DD)."""
        ...

    async def datasets(self, limit: int, cursor: str | None) -> bytes:
        """JSON of DatasetList."""
        ...

    async def dataset(self, name: str, identity: str, may_read: MayRead) -> bytes:
        """JSON of PublishedDataset of that name and identity (64 hex digits)."""
        ...

    async def pack_operations(self, limit: int, cursor: str | None) -> bytes:
        """JSON of PackOperations."""
        ...

    async def bundles(self, limit: int, cursor: str | None) -> bytes:
        """JSON of BundleHistory."""
        ...

    async def bundles_in_force(self, at_sequence: int | None, at_time: int | None) -> bytes:
        """JSON of BundlesInForce, behind a step or at a time (microseconds); now where neither is given.

        Raises:
            ContractError: INVALID_FIELD: there is no such step yet.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""


class PosturePort(Protocol):
    """The posture of the run that is served. Connected to when it is first needed, as a BuildPort is."""

    async def view(self) -> bytes:
        """JSON of PostureView.

        Raises:
            ContractError: STORE_DOWN; OVERLOADED.
        """
        ...

    async def hold(self, body: bytes, actor: str) -> bytes:
        """JSON of the PostureView behind the PostureHold in `body`: no decision under the former mode is committed from now on.

        Raises:
            ContractError: MALFORMED_JSON; MISSING_FIELD; RAW_IDENTIFIER; INVALID_FIELD; FORBIDDEN; STORE_DOWN; OVERLOADED.
        """
        ...

    async def release(self, body: bytes, actor: str) -> bytes:
        """JSON of the PostureView behind the PostureRelease in `body`.

        Raises:
            ContractError: as `hold`.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""


class BuildPort(Protocol):
    """The run ledger behind the service, connected to when it is first needed: the online plane serves without it.

    Every refusal is a ContractError; the methods return to the event loop while they wait.
    """

    async def submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        """JSON of the BuildRun that the intent in `body` (JSON, at most `max_intent_bytes` long) is: the same one every time.

        Whatever the intent says, it is `submitted_by` who asks.

        Raises:
            ContractError: MALFORMED_JSON; INTENT_REFUSED; STORE_DOWN; OVERLOADED.
        """
        ...

    async def cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        """JSON of the BuildRun under a key (64 hex digits), which has ended by now: FAILED / CANCELLED unless it had before.

        `may_read` says of a run whether the caller may know of it; `submitter`: whose runs alone it may cancel, None: any.

        Raises:
            ContractError: UNKNOWN_BUILD_RUN; FORBIDDEN, another submitted it; STORE_DOWN; OVERLOADED.
        """
        ...

    async def run(self, run_key: str, may_read: MayRead) -> bytes:
        """JSON of the BuildRun under a key (64 hex digits).

        Raises:
            ContractError: UNKNOWN_BUILD_RUN; STORE_DOWN; OVERLOADED.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""


class RecordPort(Protocol):
    """Decisions and labels of the run that is served. Connected to when it is first needed, as a BuildPort is."""

    async def record(self, body: bytes, submitted_by: str, may_read: MayRead) -> DecisionReceipt:
        """The receipt of the decision record in `body`: the same one for the same content, however often it is sent.

        Raises:
            ContractError: MALFORMED_JSON; INVALID_FIELD; MISSING_FIELD; RAW_IDENTIFIER; UNKNOWN_RUN; UNKNOWN_SNAPSHOT;
                DECISION_MISMATCH; DECISION_CONFLICT; STORE_DOWN; OVERLOADED.
        """
        ...

    async def decision(self, decision_id: str, may_read: MayRead) -> bytes:
        """JSON of the DecisionRecord with an id (64 hex digits).

        Raises:
            ContractError: UNKNOWN_DECISION; DECISION_CORRUPT; STORE_DOWN; OVERLOADED.
        """
        ...

    async def decisions(self, chosen: DecisionFilter, limit: int, cursor: str | None, may_read: MayRead) -> bytes:
        """JSON of DecisionList: at most `limit` decisions, the latest first, behind the one at `cursor`.

        Raises:
            ContractError: UNKNOWN_RUN; DECISION_CORRUPT; STORE_DOWN; OVERLOADED.
        """
        ...

    async def append_labels(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        """JSON of the LabelReceipt of the LabelAssertions in `body`.

        Raises:
            ContractError: as `record`, of labels.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""


class CasePort(Protocol):
    """Cases of the run that is served. Connected to when it is first needed, as a BuildPort is.

    Every refusal is a ContractError; each method raises STORE_DOWN and OVERLOADED. What is sent again is done once.
    """

    async def cases(self, state: CaseState, limit: int, cursor: str | None) -> bytes:
        """JSON of CaseList: at most `limit` cases of a state, the most urgent first, behind the one at `cursor`.

        Raises:
            ContractError: INVALID_FIELD, a cursor that is none of its own.
        """
        ...

    async def case(self, case_id: str, may_read: MayRead) -> bytes:
        """JSON of the Case with an id (64 hex digits).

        Raises:
            ContractError: UNKNOWN_CASE.
        """
        ...

    async def trigger(self, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """JSON of the CaseReceipt of the CaseTriggerAsk in `body`.

        Raises:
            ContractError: MALFORMED_JSON; INVALID_FIELD; MISSING_FIELD; RAW_IDENTIFIER; UNKNOWN_RUN; CASE_ENTRY_CONFLICT.
        """
        ...

    async def add(self, case_id: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """JSON of the CaseReceipt of the CaseEntryAsk in `body`.

        Raises:
            ContractError: as `trigger`; UNKNOWN_CASE; CASE_NOT_NOW.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""


class ActionPort(Protocol):
    """Actions of the run that is served. Connected to when it is first needed, as a BuildPort is.

    Every refusal is a ContractError; each method raises STORE_DOWN and OVERLOADED.
    """

    async def actions(self, state: ActionState | None, limit: int, cursor: str | None) -> bytes:
        """JSON of ActionList: at most `limit` intents, the newest first, behind the one at `cursor`; `state`: that stand there.

        Raises:
            ContractError: INVALID_FIELD, a cursor that is none of its own.
        """
        ...

    async def action(self, idempotency_key: str, may_read: MayRead) -> bytes:
        """JSON of the ActionRecord with a key (64 hex digits).

        Raises:
            ContractError: UNKNOWN_ACTION.
        """
        ...

    async def settle(self, idempotency_key: str, body: bytes, actor: str, may_read: MayRead) -> bytes:
        """JSON of the ActionRecord behind the ActionSettlementAsk in `body`: who said so stands in it, and is a governance fact.

        Raises:
            ContractError: MALFORMED_JSON; INVALID_FIELD; MISSING_FIELD; RAW_IDENTIFIER; UNKNOWN_RUN; UNKNOWN_ACTION;
                ACTION_NOT_NOW, it does not wait for people, or never again; FORBIDDEN, by the role of the service.
        """
        ...

    async def close(self) -> None:
        """Release what was taken; called once, after the last request."""
