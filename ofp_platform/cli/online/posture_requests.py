"""The posture behind the HTTP service: shown, held and released on the database, in the role of who decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg

from ofp_platform.api.bounded_work import BoundedWork
from ofp_platform.api.record_requests import read_model
from ofp_platform.ingress.own_streams import MessageRefused
from ofp_platform.log.port import LogError
from ofp_platform.online.plane import NoControlStream, Plane
from ofp_platform.posture.keeper import PostureKeeper, PostureRefused
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.posture_changes import posture_history, posture_in_force
from ofp_platform.storage.posture_looks import posture_watched
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import Reason, invalid, unavailable
from ofp_platform.vocabulary.loop.posture import PostureHold, PostureRelease, PostureView
from ofp_platform.vocabulary.profile import Profile

SHOWN_CHANGES = 20
T = TypeVar("T")
_DOWN = "the database does not answer: nothing is known to have changed; ask again, which does nothing twice"


class PostureRequests:
    """A PosturePort over one database, for the run of a profile. `dsn`: of a role that may change the posture; `now`:
    microseconds.
    """

    def __init__(self, profile: Profile, dsn: str, now: Callable[[], int]) -> None:
        self._profile = profile
        self._dsn = dsn
        self._now = now
        self._work = BoundedWork(dsn, _DOWN, "the posture")

    async def view(self) -> bytes:
        """See PosturePort."""
        return await self._work.answer(lambda: self._refused_in_words(self._view), 0)

    async def hold(self, body: bytes, actor: str) -> bytes:
        """See PosturePort."""
        wanted_hold = read_model(PostureHold, body)
        return await self._change(actor, lambda keeper: keeper.hold(wanted_hold.mode, wanted_hold.reason), len(body))

    async def release(self, body: bytes, actor: str) -> bytes:
        """See PosturePort."""
        reason = read_model(PostureRelease, body).reason
        return await self._change(actor, lambda keeper: keeper.release(reason), len(body))

    async def close(self) -> None:
        """See PosturePort."""
        await self._work.close()

    async def _change(self, actor: str, step: Callable[[PostureKeeper], object], size: int) -> bytes:
        def work() -> bytes:
            step(self._keeper(self._work.pool(), actor))
            return self._view()

        return await self._work.answer(lambda: self._refused_in_words(work), size)

    def _keeper(self, pool: Pool, actor: str) -> PostureKeeper:
        profile = self._profile
        control = Plane(profile, self._dsn, pool, None).control_log(create=True)
        return PostureKeeper(pool, control, profile.context_pins, profile.policy_rev, self._now, actor)

    def _view(self) -> bytes:
        pins = self._profile.context_pins
        with self._work.pool().connection() as connection:
            changes = tuple(change for change, _ in posture_history(connection, pins, SHOWN_CHANGES))
            in_force = posture_in_force(connection, pins)
            watched = posture_watched(connection, pins, self._profile.posture)
        view = PostureView(context_pins=pins, in_force=in_force, watched=watched, changes=changes)
        return canonical_bytes(view.wire())

    def _refused_in_words(self, work: Callable[[], T]) -> T:
        """Raises: ContractError: INVALID_FIELD; FORBIDDEN; STORE_DOWN."""
        try:
            return work()
        except (PostureRefused, MessageRefused, NoControlStream) as error:
            raise invalid(Reason.INVALID_FIELD, str(error)) from None
        except psycopg.errors.InsufficientPrivilege:
            words = "the role of this service may not change the posture: name one of a decider by OFP_DECIDER_DATABASE_URL"
            raise invalid(Reason.FORBIDDEN, words) from None
        except LogError as error:
            raise unavailable(Reason.STORE_DOWN, str(error)) from None
