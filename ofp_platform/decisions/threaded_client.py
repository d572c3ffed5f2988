"""The synchronous client for loops of asyncio: on few connections it costs half of what the asynchronous one does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ofp_platform.client import OfpClient, ReceivedFeatures
from ofp_platform.vocabulary.serving import GetFeaturesRequest


@dataclass(frozen=True)
class ThreadedClient:
    """Asks with a client in threads; both stay the caller's."""

    client: OfpClient
    threads: ThreadPoolExecutor

    async def ask(self, request: GetFeaturesRequest) -> ReceivedFeatures:
        """The answer to a request; see `OfpClient.ask`."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.client.ask, request)
