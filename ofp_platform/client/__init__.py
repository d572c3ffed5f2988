"""The typed client of the HTTP service. It needs the vocabulary, httpx, pydantic, orjson and tenacity, and nothing of the plane.

with OfpClient("http://127.0.0.1:8000") as ofp:
    answer = ofp.get_features(
        context_pins=pins, feature_keys=[("account", "acc-000117")], feature_groups=[("account_activity", "v1")],
        as_of_time_utc="2026-03-31T12:00:00Z",
    )
    verify(answer)
"""

from ofp_platform.client.answer import AnswerNotTrusted, ReceivedFeatures, ServiceUnreachable
from ofp_platform.client.client import AsyncOfpClient, ClientTls, OfpClient
from ofp_platform.client.producer import BatchPolicy, EventSender, Producer, ProducerClosed
from ofp_platform.client.question import make_request
from ofp_platform.client.retries import RetryPolicy
from ofp_platform.client.verification import verify

__all__ = [
    "AnswerNotTrusted",
    "AsyncOfpClient",
    "BatchPolicy",
    "ClientTls",
    "EventSender",
    "OfpClient",
    "Producer",
    "ProducerClosed",
    "ReceivedFeatures",
    "RetryPolicy",
    "ServiceUnreachable",
    "make_request",
    "verify",
]
