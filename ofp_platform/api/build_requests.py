"""Builds asked for over HTTP: intents go into the run ledger, runs are read from it. Nothing is built here."""

from __future__ import annotations

import orjson

from ofp_platform.api.bounded_work import BoundedWork, WorkBounds
from ofp_platform.api.service import MayRead
from ofp_platform.offline.requests.intent_file import Intent, read_intent
from ofp_platform.offline.requests.policies import BuildPolicies
from ofp_platform.offline.runs.run_ledger import RunLedger, RunOfOldForm, UnknownRun
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.profile import BuildLimits

_DOWN = "the run ledger does not answer; the same request may be sent again, and is one run"


def _as_contract_error(refusal: BuildRefused) -> ContractError:
    return invalid(Reason.INTENT_REFUSED, str(refusal))


def _unknown_run() -> ContractError:
    return not_found(Reason.UNKNOWN_BUILD_RUN, "no run has this key; the answer to a submitted intent names its run")


def _intent(body: bytes) -> Intent:
    try:
        is_object = isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise invalid(Reason.MALFORMED_JSON, f"the body is not JSON: {where}") from None
    if not is_object:
        raise _as_contract_error(BuildRefused(BuildReason.INVALID_INTENT, "an intent is an object: fields and their values"))
    try:
        return read_intent(body.decode())
    except BuildRefused as refusal:
        raise _as_contract_error(refusal) from None


class BuildRequests:
    """A BuildPort over the run ledger of one database. `limits`: those of an intent; `policies`: the build policies that
    there are.
    """

    def __init__(
        self,
        dsn: str,
        *,
        limits: BuildLimits | None = None,
        bounds: WorkBounds | None = None,
        policies: BuildPolicies | None = None,
    ) -> None:
        self._limits = limits
        self._policies = policies
        self.work = BoundedWork(dsn, _DOWN, "builds", bounds)

    async def submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        """See BuildPort."""
        return await self.work.answer(lambda: self._submit(body, submitted_by, may_read), len(body))

    async def cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        """See BuildPort."""
        return await self.work.answer(lambda: self._cancel(run_key, actor, may_read, submitter), len(run_key))

    async def run(self, run_key: str, may_read: MayRead) -> bytes:
        """See BuildPort."""
        return await self.work.answer(lambda: self._show(run_key, may_read), len(run_key))

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self.work.close()

    def _submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        intent = _intent(body).model_copy(update={"submitted_by": submitted_by})
        if not may_read(intent.context_pins):
            run_id = intent.context_pins.run_id
            raise not_found(Reason.UNKNOWN_RUN, f"run {run_id} with these pins is not known here", intent.context_pins)
        try:
            return _wire(self._ledger().submit(intent))
        except BuildRefused as refusal:
            raise _as_contract_error(refusal) from None

    def _cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        run = self._readable_run(run_key, may_read)
        if submitter is not None and run.intent.submitted_by != submitter:
            raise invalid(Reason.FORBIDDEN, "another principal submitted this run: only one with the scope operate cancels it")
        return _wire(self._ledger().cancel(run_key, actor))

    def _show(self, run_key: str, may_read: MayRead) -> bytes:
        return _wire(self._readable_run(run_key, may_read))

    def _readable_run(self, run_key: str, may_read: MayRead) -> BuildRun:
        try:
            run = self._ledger().show(run_key)
        except (UnknownRun, RunOfOldForm):  # whose run one of an old form is, cannot be read
            raise _unknown_run() from None
        if not may_read(run.intent.context_pins):
            raise _unknown_run()
        return run

    def _ledger(self) -> RunLedger:
        return RunLedger(self.work.pool(), self._limits, self._policies)


def _wire(run: BuildRun) -> bytes:
    return run.model_dump_json(exclude_none=True).encode()
