"""Which texts are keys of a key type: the default rule, or the pattern that a pack declares; of both planes and of requests.

A card number, an IBAN, an e-mail or IP address is never a key, whatever a pack declares. A bare hexadecimal fingerprint is one
only where the pack's pattern says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from ofp_platform.registry.models import Pack
from ofp_platform.vocabulary.identity import KEY_ID_TEXT, KeyType
from ofp_platform.vocabulary.raw_identifier import is_observed_identifier, is_raw_key


class KeyProblem(Enum):
    """Why a text is no key id."""

    RAW_IDENTIFIER = auto()
    CHARACTERS = auto()
    PATTERN = auto()


@dataclass(frozen=True)
class KeyRule:
    """The rule of one key type; without a pattern, the default.

    `refuses`: whether a text of 1 to 128 printable characters is no key id, for hot paths; `problem` says why.
    """

    key_type: str
    pattern: str | None = None
    refuses: Callable[[str], bool] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "refuses", is_raw_key if self.pattern is None else _refusal(self.pattern))

    def accepts(self, text: str) -> bool:
        """Whether the text is a key id."""
        return KEY_ID_TEXT.fullmatch(text) is not None and not self.refuses(text)

    def problem(self, text: str) -> KeyProblem | None:
        """Why the text is no key id; None if it is one."""
        if is_observed_identifier(text) or (self.pattern is None and is_raw_key(text)):
            return KeyProblem.RAW_IDENTIFIER
        if KEY_ID_TEXT.fullmatch(text) is None:
            return KeyProblem.CHARACTERS
        return KeyProblem.PATTERN if self.refuses(text) else None


def key_rules(pack: Pack) -> Mapping[str, KeyRule]:
    """The rule of every key type, whether or not the pack has it."""
    patterns = {key_type.value: pattern for key_type, pattern in pack.key_patterns.items()}
    return MappingProxyType({key_type.value: KeyRule(key_type.value, patterns.get(key_type.value)) for key_type in KeyType})


def _refusal(pattern: str) -> Callable[[str], bool]:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def refuses(text: str) -> bool:
        return matches(text) is None or is_observed_identifier(text)

    return refuses
