"""Tokens from the environment and the rule about addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.api.authentication import ExposureError, Tokens, check_exposure, is_loopback, load_tokens
from ofp_platform.vocabulary.errors import ContractError

ONE, TWO, THREE = "first-token-0123456789", "second-token-0123456789", "third-token-0123456789"


def accepts(tokens: Tokens, token: str) -> bool:
    try:
        tokens.check(f"Bearer {token}".encode())
    except ContractError:
        return False
    return True


def test_tokens_of_variable_and_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# decision service\n{THREE}\n\n", encoding="utf-8")
    tokens = load_tokens({"OFP_API_TOKENS": f" {ONE},{TWO} ", "OFP_API_TOKENS_FILE": str(path)})
    assert tokens
    assert all(accepts(tokens, token) for token in (ONE, TWO, THREE))
    assert not accepts(tokens, "")
    assert not accepts(tokens, ONE + TWO)


def test_without_tokens_everybody_is_let_in() -> None:
    tokens = load_tokens({})
    assert not tokens
    tokens.check(None)


def test_unusable_settings_are_refused_and_no_token_is_shown(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n", encoding="utf-8")
    for environ in [
        {"OFP_API_TOKENS": "short"},
        {"OFP_API_TOKENS": "has-a-letter-ö-0123456789"},
        {"OFP_API_TOKENS_FILE": str(tmp_path / "none")},
        {"OFP_API_TOKENS_FILE": str(tmp_path)},
        {"OFP_API_TOKENS_FILE": str(empty)},
    ]:
        with pytest.raises(ExposureError) as caught:
            load_tokens(environ)
        assert "short" not in str(caught.value)


def test_tokens_are_not_kept() -> None:
    assert ONE not in repr(vars(Tokens([ONE])))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.test", False),
        ("127.0.0.1.example.test", False),
    ],
)
def test_an_open_service_stays_on_the_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    check_exposure(host, Tokens([ONE]))
    if loopback:
        check_exposure(host, Tokens())
    else:
        with pytest.raises(ExposureError, match="OFP_API_TOKENS"):
            check_exposure(host, Tokens())
