"""Sending an event of OpenLineage: to a file, a line each, or to a collector over HTTP."""

from __future__ import annotations

from pathlib import Path

from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider
from requests import RequestException

RETRIES = {"total": 3, "backoff_factor": 0.3}
"""Of a collector that does not answer, as urllib3 takes them."""


class LineageNotTaken(Exception):
    """An event did not reach its destination; the text says why."""


def event_text(event: RunEvent) -> str:
    """The event as JSON."""
    return Serde.to_json(event)


def send(event: RunEvent, destination: str, api_key: str | None = None) -> None:
    """Append the event to a file, or post it to the collector at a URL (`/api/v1/lineage` there), with `api_key` if given.

    Raises:
        LineageNotTaken: the collector refused it or does not answer; the file cannot be written.
    """
    if destination.startswith(("http://", "https://")):
        token = TokenProvider({}) if api_key is None else ApiKeyTokenProvider({"apiKey": api_key})
        transport = HttpTransport(HttpConfig(destination, auth=token, retry=RETRIES))
        try:
            transport.emit(event)
        except RequestException as error:
            status = "does not answer" if error.response is None else f"answered {error.response.status_code}"
            raise LineageNotTaken(f"the collector at {destination} {status}: nothing was told") from None
        finally:
            transport.close()
        return
    try:
        with Path(destination).open("a", encoding="utf-8") as file:
            file.write(f"{event_text(event)}\n")
    except OSError as error:
        raise LineageNotTaken(f"{destination}: {error.strerror or type(error).__name__}") from None
