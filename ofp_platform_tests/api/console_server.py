"""A small plane of the demo's run behind a real service, and a browser that looks at its console."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.client import OfpClient
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.api.keys import BEARER, KEY, principal, write_principals
from ofp_platform_tests.oracle.decided import decision_on
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO, fill_demo_plane
from ofp_platform_tests.oracle.kept import Kept, keep_one_of_each

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE, NARROW = (1280, 900), (390, 844)
READY_MS = 60_000
_SECONDS = 240


def chromium() -> str | None:
    """The program of a browser of this machine."""
    named = os.environ.get("OFP_CHROMIUM")
    return named or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


@dataclass
class ServedConsole:
    """Where it is served, keys of who may everything and of who may ask only, and what there is to look at."""

    address: str
    key: str
    asking_key: str
    snapshots: list[str]
    decision_id: str
    case_id: str
    kept: Kept

    def pages(self) -> dict[str, str]:
        """What stands behind '#' by name: each page, with something on it."""
        first, second = self.snapshots
        value = f"{first}/account%3A{ACCOUNT}/account_activity%3Av1/sum_amount_30d"
        return {
            "health": "/health",
            "features": "/features",
            "snapshots": "/snapshots",
            "snapshot": f"/snapshot/{first}",
            "events": f"/events/{value}",
            "difference": f"/difference/{first}/{second}",
            "catalogue": "/catalogue",
            "cases": "/cases",
            "case": f"/case/{self.case_id}",
            "decisions": "/decisions",
            "decision": f"/decision/{self.decision_id}",
            "parity": "/parity",
            "comparison": f"/comparison/{self.kept.comparison_id}",
            "builds": "/builds",
            "build": f"/build/{self.kept.build}",
            "datasets": "/datasets",
            "dataset": f"/dataset/fraud_by_payment/{self.kept.dataset.dataset_identity}",
            "operations": "/operations",
            "posture": "/posture",
            "failures": "/failures",
            "key": "/key",
        }


@contextmanager
def served_console(home: Path, dsn: str) -> Iterator[ServedConsole]:
    """A service of the demo's run with two snapshots served."""
    fill_demo_plane(home, dsn)
    asking_key, asking = principal("asking", ["features:read"])
    variables = {
        "OFP_HOME": str(home),
        "OFP_DATABASE_URL": dsn,
        "OFP_PRINCIPALS": str(write_principals(home / "principals.json", asking)),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    with Child("console", ofp_command("serve", "--port", "0"), variables, home / "serve.log") as service:
        address = service.wait_for_line("serving at ", _SECONDS)
        assert address is not None, (home / "serve.log").read_text()
        with OfpClient(address, token=KEY, timeout_seconds=30) as ofp:
            pins: ContextPins = ofp.feature_groups().context_pins
            answers = [
                ofp.get_features(
                    context_pins=pins,
                    feature_keys=[("account", ACCOUNT)],
                    feature_groups=[("account_activity", "v1")],
                    as_of_time_utc=as_of,
                )
                for as_of in (AFTER_THE_DEMO, "2026-02-04T00:00:00Z")
            ]
            hashes = [answer.provenance.feature_snapshot_hash for answer in answers]
            decided = ofp.record_decision(decision_on(answers[0]))
        with Environment(home=home, database_url=dsn, profile="demo").open_plane("owner") as plane:
            objects = ObjectStore(plane.profile.object_store_url)
            stream_name = plane.profile.stream_name
            kept = keep_one_of_each(plane.pool, objects, pins, stream_name, decided.decision_id, hashes[0])
        case_id = open_cases(address, pins)
        yield ServedConsole(address, KEY, asking_key, hashes, decided.decision_id, case_id, kept)


def open_cases(address: str, pins: ContextPins) -> str:
    """Three cases, and a fourth with something of each kind in it; the id of that."""
    with httpx.Client(base_url=address, headers=BEARER, timeout=30) as http:

        def post(path: str, **body: Any) -> dict[str, Any]:
            answered = http.post(path, json={"context_pins": pins.wire(), **body})
            assert answered.status_code == 200, answered.text
            return dict(answered.json())

        for number in range(3):
            event = {"event_class": "card_payment", "event_id": f"called-{number}", "source_ref": f"call/{number}"}
            post("/v0/cases", **event, trigger="MANUAL_ASSERTION", reason="a customer called")
        event = {"event_class": "card_payment", "event_id": "reported", "source_ref": "issuer/1"}
        case_id = str(post("/v0/cases", **event, trigger="EXTERNAL_SIGNAL", reason="reported lost")["case_id"])
        contents: list[dict[str, Any]] = [
            {"entry_type": "NOTE", "text": "called the customer"},
            {"entry_type": "ACTION_REQUESTED", "action_type": "hold_account", "target": "account:a-1", "reason": "meanwhile"},
            {"entry_type": "LABEL_PENDING", "label_type": "chargeback_status", "word": "filed"},
        ]
        for number, content in enumerate(contents):
            post(f"/v0/cases/{case_id}/entries", source_ref=f"r-{number}", content=content)
        conflict = {"context_pins": pins.wire(), "source_ref": "r-0", "content": {"entry_type": "NOTE", "text": "other"}}
        assert http.post(f"/v0/cases/{case_id}/entries", json=conflict).status_code == 409
    return case_id


@contextmanager
def browser() -> Iterator[Browser]:
    """Headless, and asking nobody but the page's own host.

    Raises:
        RuntimeError: there is none.
    """
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise RuntimeError("no Chromium: install the package chromium, or name one in OFP_CHROMIUM")
    switches = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=program, args=[*switches, "--disable-component-update"], chromium_sandbox=False
        )
        try:
            yield opened
        finally:
            opened.close()


def enter(page: Page, served: ServedConsole, key: str | None = None) -> None:
    """Open the console and give it a key, as a person does."""
    enter_key(page, served.address, key or served.key)


def enter_key(page: Page, address: str, key: str) -> None:
    """The same of any service."""
    page.goto(f"{address}/console#/key")
    page.get_by_label("Key of a principal").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("The key is kept until").wait_for()


def show(page: Page, target: str) -> None:
    """Go to a page, and wait until that page is loaded."""
    moved = "target => { document.getElementById('main').dataset.ready = ''; location.hash = '#' + target }"
    page.evaluate(moved, target)
    await_loaded(page, page.evaluate("location.hash"))


def await_loaded(page: Page, target: str) -> None:
    """Wait until the page behind the address's `#` is loaded; the one that was there before it is not it."""
    page.locator(f"main[data-ready={json.dumps(target)}]").wait_for(timeout=READY_MS)
