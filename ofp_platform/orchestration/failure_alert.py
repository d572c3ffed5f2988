"""An alert about a run that failed: one POST to the address in OFP_ALERT_WEBHOOK_URL.

Slack, Teams and mail gateways give such addresses.
"""

from __future__ import annotations

import os

import httpx

from ofp_platform.vocabulary.offline.governance_fact import RunFailed

ADDRESS = "OFP_ALERT_WEBHOOK_URL"
RUNBOOK = "OFP_RUNBOOK_URL"
DEFAULT_RUNBOOK = "docs/runbook.md#runs-of-dagster-that-failed"
_SECONDS = 5.0
_MOST_CHARACTERS = 2_000


def send_alert(fact: RunFailed) -> str | None:
    """Send it; None if it was taken, or none is wanted. Otherwise why not, without the address: that is a secret."""
    address = os.environ.get(ADDRESS, "")
    if not address:
        return None
    try:
        response = httpx.post(address, json=alert(fact), timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if response.is_success else f"the receiver answered {response.status_code}"


def alert(fact: RunFailed) -> dict[str, object]:
    """The body: `text` for a person, as chat programs show it, and the whole fact for a program."""
    what = fact.partition or " to ".join(key for key in fact.partition_range if key) or "no partition"
    reasons = "; ".join(fact.reasons) or fact.error
    runbook = os.environ.get(RUNBOOK) or DEFAULT_RUNBOOK
    text = f"Dagster run {fact.run_id} of {fact.job_name} ({what}) failed: {reasons}"
    return {"text": f"{text[:_MOST_CHARACTERS]}\nRunbook: {runbook}", "runbook": runbook, "fact": fact.wire()}
