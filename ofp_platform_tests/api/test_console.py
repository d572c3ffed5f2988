"""The console in a real browser, on a real service of a small plane: keyboard, themes, accessibility, refusals, hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ofp_platform.api.posture_examples import posture_view_example
from ofp_platform_tests.api.console_server import (
    NARROW,
    WIDE,
    ServedConsole,
    await_loaded,
    browser,
    chromium,
    enter,
    served_console,
    show,
)
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium on this machine: apt-get install chromium, or name one in OFP_CHROMIUM"
)
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def served(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedConsole]:
    with served_console(tmp_path_factory.mktemp("console"), module_dsn) as console:
        yield console


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as one:
        yield one


class Watched:
    """A page that keeps what the browser complains of, and which hosts it asked."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.urls: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))


@pytest.fixture
def watched(opened: Browser) -> Iterator[Watched]:
    context = opened.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    yield Watched(context.new_page())
    context.close()


THEMES: dict[Any, str] = {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 22, 29)"}
"""Each theme and its background."""


def test_every_page_in_each_theme_is_sound_and_accessible(watched: Watched, served: ServedConsole) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    page = watched.page
    enter(page, served)
    # once: the pages are parts of one document. The log of the browser must stay empty: the debugger puts it in, not the page
    page.evaluate(axe.axe_script)
    for name, target in served.pages().items():
        page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
        show(page, target)
        assert page.locator("main [role=alert]").count() == 0, (name, page.locator("main").inner_text())
        assert page.locator("h1").count() == 1
        for theme, background in THEMES.items():
            page.emulate_media(color_scheme=theme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
            violations = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            serious = [one for one in violations if one["impact"] in ("serious", "critical")]
            assert not serious, (name, theme, [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in serious])
        page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0], name
    assert watched.complaints == []
    assert {url.startswith(served.address + "/") for url in watched.urls} == {True}
    assert not any(served.key in url for url in watched.urls)


def test_the_switch_of_the_theme_outranks_the_system(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    page.goto(f"{served.address}/console")
    switch = page.locator("#theme")
    background = "getComputedStyle(document.body).backgroundColor"
    assert switch.inner_text() == "Theme: system"
    switch.click()
    switch.click()
    assert page.evaluate(background) == "rgb(16, 22, 29)"
    page.reload()
    assert switch.inner_text() == "Theme: dark"
    assert page.evaluate(background) == "rgb(16, 22, 29)"


def tab_to(page: Page, target: Locator, most: int = 80) -> None:
    """Press Tab until the element has the focus, which is seen."""
    target.wait_for()
    for _ in range(most):
        page.keyboard.press("Tab")
        if target.evaluate("one => one === document.activeElement"):
            assert target.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
            return
    raise AssertionError(f"{target} is not reached by Tab")


def test_from_an_entity_and_a_time_to_the_events_of_a_value_by_keyboard(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    page.goto(f"{served.address}/console")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    tab_to(page, page.get_by_role("link", name="Enter key"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("Key of a principal"))
    page.keyboard.type(served.key)
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("link", name="Ask", exact=True))
    page.keyboard.press("Enter")
    tab_to(page, page.locator("input[name=key_id]"))
    page.keyboard.type(ACCOUNT)
    tab_to(page, page.locator("input[name=as_of]"))
    page.keyboard.press("Control+A")
    page.keyboard.type(AFTER_THE_DEMO)
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("link", name="Events behind sum_amount_30d"))
    page.keyboard.press("Enter")
    page.get_by_text("the hash is the same").wait_for(timeout=60_000)
    assert page.evaluate("document.activeElement.tagName") == "H1"
    shown = page.locator("main").inner_text()
    assert "107016" in shown
    assert "Events in it\n61" in shown
    assert 'amount_minor":' not in shown
    assert watched.complaints == []


def test_three_keys_lead_from_the_decisions_to_the_events_of_one(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/decisions")
    for name in ("Decision ", "Events behind sum_amount_30d"):
        tab_to(page, page.locator("main").get_by_role("link", name=name).first)
        page.keyboard.press("Enter")
    page.get_by_text("the hash is the same").wait_for(timeout=60_000)
    assert "107016" in page.locator("main").inner_text()
    assert watched.complaints == []


@pytest.mark.parametrize(
    ("start", "link", "text"),
    [
        ("parity", "Comparison [0-9a-f]{12}", "Parity by day and group"),
        ("builds", "Build [0-9a-f]{12}", "Stages that ended"),
        ("datasets", "fraud_by_payment", "Gates that it passed"),
        ("health", "Failures", "Records that feed no group, or not all."),
    ],
)
def test_lists_lead_to_what_they_list_by_keyboard(
    watched: Watched, served: ServedConsole, start: str, link: str, text: str
) -> None:
    page = watched.page
    enter(page, served)
    show(page, f"/{start}")
    tab_to(page, page.get_by_role("link", name=re.compile(link)).first)
    page.keyboard.press("Enter")
    page.get_by_text(text).wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert watched.complaints == []


def test_what_was_kept_is_told_apart(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/parity")
    assert page.locator("main .badge").all_inner_texts() == ["MISMATCH", "NOTHING COMPARED"]
    show(page, f"/comparison/{served.kept.comparison_id}")
    assert page.locator("main .badge").all_inner_texts() == ["MISMATCH", "MISMATCH", "MATCH", "MATCH", "MATCH"]
    shown = page.locator("main").inner_text()
    assert "PROVENANCE_INCOMPLETE 1" in shown
    assert "1 snapshots are in no day" in shown
    show(page, "/datasets")
    assert page.locator("main .badge").all_inner_texts() == ["UNREADABLE", "AS RECORDED", "DIFFERS"]
    show(page, "/builds")
    assert "LABEL_COVERAGE_BELOW_POLICY (label) 0.421 of the mature rows" in page.locator("main").inner_text()
    show(page, "/builds/QUEUED")
    assert page.locator("main tbody tr").count() == 1
    show(page, "/operations")
    assert page.locator("main .badge").all_inner_texts() == ["refused", "switched", "begun"]


LISTS = {
    "/parity": ("comparisons", "Nothing was compared."),
    "/builds": ("builds", "No build was asked for"),
    "/datasets": ("datasets", "No dataset is published"),
    "/operations": ("steps", "No operation put a pack live"),
    "/cases": ("cases", "No case is open."),
}


def test_a_list_of_nothing_is_never_green(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)

    def answer(route: Any) -> None:
        response = route.fetch()
        content = response.json()
        names = {name for name, _ in LISTS.values()}
        emptied = {name: [] if name in names else value for name, value in content.items()}
        route.fulfill(response=response, body=json.dumps(emptied | {"next_cursor": None}))

    page.route("**/v0/**", answer)
    for target, (_, words) in LISTS.items():
        show(page, target)
        assert words in page.locator("main").inner_text()
        assert page.locator("main .good").count() == 0


def test_the_kill_switch_by_keyboard(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/posture")
    assert page.locator("main .badge.good").count() == 0
    assert "nobody ever said anything else" in page.locator("main").inner_text()
    page.get_by_label("Why it is held").fill("stop")
    page.keyboard.press("Enter")
    page.get_by_text("names no control_stream").wait_for()  # the run of the demo has none: refused in words
    asked: list[Any] = []

    def answer(route: Any) -> None:
        asked.append((route.request.url.rpartition("/v0/")[2], route.request.post_data_json))
        route.fulfill(json=posture_view_example())

    page.route("**/v0/posture/**", answer)
    page.locator("select[name=mode]").focus()
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("FAIL_CLOSED is held").wait_for()
    assert "yes, by operator: no signal changes it" in page.locator("main").inner_text()
    page.get_by_label("Why it is released").fill("over")
    page.keyboard.press("Enter")
    page.get_by_text("It is released: signals").wait_for()
    assert asked == [
        ("posture/hold", {"mode": "FAIL_CLOSED", "reason": "stop"}),
        ("posture/release", {"reason": "over"}),
    ]


def test_the_next_page_of_a_list_is_asked_for_by_its_cursor(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)

    def answer(route: Any) -> None:
        if "cursor=" in route.request.url:
            route.continue_()
            return
        response = route.fetch(url=route.request.url.replace("limit=20", "limit=1"))
        route.fulfill(response=response)

    page.route("**/v0/build_runs?**", answer)
    show(page, "/builds")
    assert page.locator("main tbody tr").count() == 1
    earlier = page.get_by_role("link", name="Earlier builds")
    target = earlier.get_attribute("href")
    assert target is not None
    earlier.click()
    await_loaded(page, target)
    assert page.locator("main tbody tr").count() > 1


def test_health_over_time_is_the_services_own(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    page.goto(f"{served.address}/console")
    page.get_by_text("Since this page was opened").wait_for()
    enter(page, served)
    show(page, "/health")
    page.get_by_text("Last 24 hours, as the service kept it").wait_for()
    assert "not observed 23." in page.locator("main").inner_text()
    tab_to(page, page.get_by_role("button", name="1 hour"))
    page.keyboard.press("Enter")
    page.get_by_text("Last hour, as the service kept it").wait_for()
    assert watched.complaints == []


def case_called(page: Page, number: int) -> Locator:
    return page.get_by_role("link", name=re.compile(f"Case [0-9a-f]{{12}} on called-{number}$"))


def test_a_case_is_labelled_by_keys_alone(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/cases")
    rows = page.locator("main tbody th a")
    assert "on reported" in (rows.first.get_attribute("aria-label") or "")  # the most urgent stands first

    def focused() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))

    page.keyboard.press("j")
    assert focused().endswith("on reported")
    page.keyboard.press("j")
    second = focused()
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert focused().endswith("on reported")
    page.keyboard.press("j")
    assert focused() == second
    page.keyboard.press("Enter")
    page.get_by_text("Timeline").wait_for()
    page.keyboard.press("Escape")
    await_loaded(page, "#/cases")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("1")  # opens it with a choice made
    page.get_by_role("button", name="Assert: Fraud").wait_for()
    page.keyboard.press("Escape")  # takes the choice back
    assert page.get_by_role("button", name="Assert: Fraud").count() == 0
    page.keyboard.press("2")
    page.get_by_role("button", name="Assert: Legitimate").wait_for()
    page.keyboard.press("Enter")
    page.locator("main").get_by_text("legitimate ACCEPTED").wait_for()
    assert watched.complaints == []


def test_two_clicks_label_a_case_and_a_form_closes_it(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/cases")
    case_called(page, 2).click()
    page.get_by_role("button", name="1 Fraud").click()
    page.get_by_role("button", name="Assert: Fraud").click()
    page.locator("main").get_by_text("fraud ACCEPTED").wait_for()
    page.get_by_label("Note, without card numbers").fill("1 of 2 calls")  # a digit in a field is no key
    page.get_by_role("button", name="Add the note").click()
    page.get_by_text("1 of 2 calls").wait_for()
    page.get_by_label("Why nobody has to look any more").fill("it is settled")
    page.get_by_role("button", name="Close the case").click()
    page.get_by_role("button", name="Reopen the case").wait_for()
    show(page, "/cases")
    assert case_called(page, 2).count() == 0
    show(page, "/cases/CLOSED")
    assert case_called(page, 2).count() == 1
    assert watched.complaints == []


def test_a_case_says_what_waits_what_conflicts_and_what_is_refused(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/cases")
    assert "came again with other content" in page.locator("main").inner_text()
    show(page, f"/case/{served.case_id}")
    shown = page.locator("main").inner_text()
    assert "reported lost" in shown
    assert "hold_account of account:a-1: meanwhile" in shown
    assert "Came again with other content; the first stands" in shown
    page.get_by_label("Note, without card numbers").fill("card 4111111111111111")
    page.get_by_role("button", name="Add the note").click()
    assert "RAW_IDENTIFIER" in page.get_by_role("alert").inner_text()

    def waiting(route: Any) -> None:
        content = route.fetch().json()
        content["standing"]["labels"][0]["state"] = "PENDING"
        route.fulfill(json=content)

    page.route(f"**/v0/cases/{served.case_id}", waiting)
    show(page, "/cases")
    show(page, f"/case/{served.case_id}")
    assert "A label waits for the label store" in page.locator("main").inner_text()
    show(page, f"/case/{'0' * 64}")
    assert "whether the id is whole" in page.get_by_role("alert").inner_text()


def test_a_difference_of_two_snapshots(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)
    show(page, "/difference")
    page.get_by_label("First snapshot").fill(served.snapshots[0])
    page.get_by_label("Second snapshot").fill(served.snapshots[1])
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Values that differ").wait_for()
    shown = page.locator("main").inner_text()
    assert "sum_amount_30d" in shown
    assert "107016" in shown
    assert "AS OF" in shown.upper()
    show(page, f"/difference/{served.snapshots[0]}/{served.snapshots[0]}")
    assert "No value differs." in page.locator("main").inner_text()


def test_refusals_say_what_to_do(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    page.goto(f"{served.address}/console")
    show(page, "/catalogue")
    assert "needs a key" in page.get_by_role("alert").inner_text()
    enter(page, served, served.asking_key)
    show(page, f"/snapshot/{served.snapshots[0]}")
    assert "lacks the scope" in page.get_by_role("alert").inner_text()
    enter(page, served)
    show(page, f"/snapshot/{'0' * 64}")
    assert "whether the hash is whole" in page.get_by_role("alert").inner_text()
    show(page, "/nowhere/<b>")
    assert "no page of this name" in page.get_by_role("alert").inner_text()
    page.route("**/v0/catalogue", lambda route: route.abort())
    show(page, "/catalogue")
    assert "does not answer" in page.get_by_role("alert").inner_text()
    assert [url for url in watched.urls if "ofp_" in url] == []


def hostile(node: Any) -> Any:
    """The same JSON, with markup behind each text."""
    if isinstance(node, dict):
        return {name: one if name in ("kind", "role", "error_code") else hostile(one) for name, one in node.items()}
    if isinstance(node, list):
        return [hostile(one) for one in node]
    return node + HOSTILE if isinstance(node, str) else node


def test_text_is_shown_and_never_parsed(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    enter(page, served)

    def answer(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=json.dumps(hostile(response.json())))

    page.route("**/v0/**", answer)
    page.route("**/health", answer)
    for name, target in served.pages().items():
        show(page, target)
        assert page.locator("main img, main script, header img").count() == 0, name
        if name not in ("features", "key", "snapshots", "health"):
            assert "<img src=x" in page.locator("main").inner_text(), name
    assert "taken" not in page.title()
    assert [one for one in watched.complaints if "violates" in one] == []


def test_the_page_runs_no_script_that_is_put_into_it(watched: Watched, served: ServedConsole) -> None:
    page = watched.page
    page.goto(f"{served.address}/console")
    refusal = re.compile("Content Security Policy|TrustedScript")
    with page.expect_console_message(lambda message: refusal.search(message.text) is not None):
        page.evaluate(
            """() => {
            const script = document.createElement('script');
            try { script.textContent = "document.title = 'taken'"; document.head.append(script); } catch (error) { }
            const image = document.createElement('img');
            image.setAttribute('src', 'http://192.0.2.1/x');
            document.body.append(image);
            }"""
        )
    assert page.title() != "taken"


def test_the_files_are_in_the_package() -> None:
    from importlib import resources

    folder = resources.files("ofp_platform.api").joinpath("console")
    assert {"index.html", "app.js", "console.css"} <= {one.name for one in folder.iterdir()}
    text = Path(str(folder.joinpath("index.html"))).read_text(encoding="utf-8")
    assert "<style" not in text
    assert "onclick" not in text
