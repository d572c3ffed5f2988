"""The action policy: read whole or refused in words, and never more than it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.actions.allow_list import ActionPolicyUnusable, load_action_policy
from ofp_platform.vocabulary.loop.action_policy import Attempts
from ofp_platform_tests.actions.conftest import policy

GOOD = """\
revision: 1
allow_list:
  - {actor: decider, action_type: hold_account, scope: account}
webhooks:
  cases: {url: "http://127.0.0.1:8190/actions", secret_variable: SECRET, status_url: "http://127.0.0.1:8190/status/{key}"}
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "actions.yaml"
    path.write_text(GOOD)
    loaded = load_action_policy(path)
    assert loaded.rev.startswith("1.")
    assert load_action_policy(path).rev == loaded.rev
    path.write_text(GOOD.replace("8190/actions", "8191/actions"))
    assert load_action_policy(path).rev != loaded.rev  # where an action goes is part of it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory: without an action policy nothing is done"),
        ("", "the file: should be fields with their values"),
        ("allow_list: [", "not YAML"),
        (GOOD.replace("revision: 1", "revision: 0"), "revision: Input should be greater"),
        (
            GOOD.replace("  - {actor: decider, action_type: hold_account, scope: account}", "  []"),
            "allow_list: Tuple should have",
        ),
        (GOOD.replace("scope: account", "scope: Account"), "allow_list.0.scope: String should match"),
        (GOOD.replace("actor: decider, ", ""), "allow_list.0.actor: Field required"),
        (GOOD.replace("{actor", "{who: me, actor"), "allow_list.0.who: Extra inputs"),
        (GOOD.replace("webhooks:", "  - {actor: decider, action_type: hold_account, scope: account}\nwebhooks:"), "entry twice"),
        (GOOD.replace("/status/{key}", "/status"), "status_url: has {key} once"),
        (GOOD.replace("cases:", "account_hold:"), "account_hold is a name of the plane's own"),
        (GOOD.replace("http://127.0.0.1:8190/actions", "file:///etc/passwd"), "webhooks.cases.url: String should match"),
        (GOOD.replace("secret_variable: SECRET", "secret_variable: whsec_x"), "webhooks.cases.secret_variable"),
    ],
)
def test_a_file_that_is_missing_or_broken(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "actions.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ActionPolicyUnusable) as refused:
        load_action_policy(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_an_entry_allows_what_it_names() -> None:
    allowed = policy()
    assert allowed.allows("decider", "hold_account", "account")
    assert allowed.allows("decider", "release_account", "anything")
    for wrong in (("decider", "hold_account", "card"), ("operator", "hold_account", "account"), ("decider", "hold", "account")):
        assert not allowed.allows(*wrong)


def test_pauses_double_up_to_the_longest() -> None:
    attempts = Attempts(most=6, first_pause_ms=500, longest_pause_ms=3_000)
    assert [attempts.pause_us(count) for count in (1, 2, 3, 4, 99)] == [500_000, 1_000_000, 2_000_000, 3_000_000, 3_000_000]
