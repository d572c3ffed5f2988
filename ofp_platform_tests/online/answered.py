"""An answer, whether it was there at once or had to be awaited."""

from __future__ import annotations

from collections.abc import Awaitable

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.online.serving.async_reader import AsyncReader


async def answered(asked: AsyncReader | OnlineService, body: bytes) -> Answer:
    """The answer to a body."""
    answer = asked.answer(body)
    return await answer if isinstance(answer, Awaitable) else answer
