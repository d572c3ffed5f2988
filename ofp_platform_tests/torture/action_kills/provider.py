"""A provider that does each request that reaches it, however often one comes, and answers as it likes. Its books are right."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from random import Random

from ofp_platform.actions.webhook import DONE, NOT_DONE, UNKNOWN
from ofp_platform.actions.webhook_signature import parse_secret, verify

SECRET = f"whsec_{'A' * 32}"
TIMEOUT_MS = 100
_LATE_SECONDS = 0.18
_SILENT_EVERY = 23
"""One key in so many is never answered for."""
HABITS = (
    "does it and answers late",
    "takes it, and does it late",
    "does it and breaks off",
    "breaks off",
    "does it and answers 500",
    "answers 500",
    "answers 429",
    "answers twice",
)


@dataclass
class Provider:
    """`done`: how often each key was done. `faults`: of a thousand requests, how many meet a habit."""

    rng: Random
    faults: int = 300
    done: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    _habits: Iterator[str] = field(default_factory=lambda: cycle(HABITS))
    _in_hand: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, key: str) -> str:
        """Take a request in hand, and say which habit it meets; "" for none."""
        with self._lock:
            self._in_hand[key] += 1
            habit = next(self._habits) if self.rng.randrange(1_000) < self.faults else ""
            self.met[habit] += 1
            return habit

    def finish(self, key: str, *, is_done: bool) -> None:
        """Put a request in the books."""
        with self._lock:
            self._in_hand[key] -= 1
            self.done[key] += is_done

    def status(self, key: str) -> str:
        """The answer of the status URL; "" for none."""
        with self._lock:
            if self.faults and (int(key[:8], 16) % _SILENT_EVERY == 0 or self.rng.randrange(1_000) < self.faults):
                return self.rng.choice((UNKNOWN, ""))
            if self._in_hand[key] > 0:
                return UNKNOWN
            return DONE if self.done[key] else NOT_DONE


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    """Inside the context the provider answers on the loopback; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            key = self._verified()
            habit = provider.take(key)
            if habit == "takes it, and does it late":
                time.sleep(_LATE_SECONDS)
            provider.finish(key, is_done=habit not in ("breaks off", "answers 500", "answers 429"))
            if habit == "does it and answers late":
                time.sleep(_LATE_SECONDS)
            if habit.endswith("breaks off"):
                self.close_connection = True
                return
            status = 500 if habit.endswith("500") else 429 if habit.endswith("429") else 200
            for _ in range(2 if habit == "answers twice" else 1):
                self._send(status, b"{}")

        def do_GET(self) -> None:
            status = provider.status(self._verified())
            if not status:
                self.close_connection = True
                return
            self._send(200, b'{"status": "%s"}' % status.encode())

        def _verified(self) -> str:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): text for name, text in self.headers.items()}
            return verify(parse_secret(SECRET), headers, body, int(time.time()))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_: object) -> None:
            """Whoever asked was killed."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
