r"""Card numbers in texts: the one rule, for every boundary.

A text is normalised first, character by character: a decimal digit of any script is that digit, every dash is a dash, and
blanks, control and invisible characters are separators, as dashes and dots are. In what is left, a card number is a number
of 13 to 19 digits that passes the Luhn check and

- is the whole text, whatever separates its digits and whatever but letters and digits stands around them; or
- stands anywhere in it without separators; or
- stands anywhere in it in groups as cards show them: 4-4-4-4, up to three digits more or fewer; 4-6-4, 4-6-5, 4-3-3-3.

Not taken for one: a decimal with one point or a date written with separators, as a whole text; digits inside a UUID or a
longer hexadecimal name; and inside a longer text, where no card number begins so, what begins with 0 (zeros in front are
dropped), milli-, micro- or nanoseconds since the epoch from 2015 to 2033, and groups that begin as a year does, 19 or 20.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

LEAST_DIGITS, MOST_DIGITS = 13, 19
_NARROW = r"[\x00-\x20\x7f.\-]"  # separators, once normalised
_OTHER = r"[^0-9A-Za-z]"
_MINUS = frozenset("\u02d7\u2043\u2212")
_DOTS = frozenset("\u00b7\u2022\u2024\u2027\u2219\u22c5\u3002\u30fb\ufe52\uff0e\uff61")

_WHOLE = re.compile(rf"{_OTHER}*([0-9](?:{_NARROW}{{0,8}}[0-9]){{12,18}}){_OTHER}*")
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
_YEAR, _MONTH, _DAY = "(?:19|20)[0-9]{2}", "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_DATE = re.compile(
    rf"{_YEAR}[ .\-]{_MONTH}[ .\-]{_DAY}(?![0-9])|{_DAY}[ .\-]{_MONTH}[ .\-]{_YEAR}(?![0-9])|{_YEAR}{_MONTH}{_DAY}[ .\-]"
)
_EPOCH = re.compile(r"1(?:4[2-9]|[5-9][0-9])(?:[0-9]{10}|[0-9]{13}|[0-9]{16})")
_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_TOKEN = re.compile(r"[0-9A-Za-z]{15,}")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]+")
_SHORTEST_IBAN, _SHORTEST_FINGERPRINT = 15, 32
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[0-9A-Z]{11,30}", re.ASCII)
_EMAIL = re.compile(r"[^@]@[^@]+\.[^@.]+$")
_PORT_OR_MASK = re.compile(r"(?<=[0-9\]])[:/][0-9]{1,5}$", re.ASCII)
_RUN = re.compile(rf"[0-9]{{{LEAST_DIGITS},}}")


def _layouts() -> list[re.Pattern[str]]:
    """Groups of digits as cards show them, from each place where they begin: apart by separators, or all by one character."""
    layouts = []
    for sizes in (("4", "4", "4", "4", "1,3"), ("4", "4", "4", "1,4"), ("4", "6", "4,5"), ("4", "3", "3", "3")):
        for first, rest in ((f"({_NARROW}{{1,8}})", f"{_NARROW}{{1,8}}"), (f"({_OTHER})", r"\2")):
            groups = [f"[0-9]{{{size}}}" for size in sizes]
            layouts.append(re.compile(f"(?<![0-9])(?=({groups[0]}{first}{rest.join(groups[1:])})(?![0-9]))"))
    return layouts


_LAYOUTS = _layouts()
# one look for all forms above: 13 bytes that may be of digits, with no letter between them, whatever else is
_MAY_BE_DIGITS = b"0123456789" + bytes(range(0x80, 0x100))
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KINDS = bytes(48 if byte in _MAY_BE_DIGITS else 97 for byte in range(0x100))
_BETWEEN = bytes(byte for byte in range(0x80) if byte not in _MAY_BE_DIGITS and byte not in _LETTERS)
_SUSPECT = b"0" * LEAST_DIGITS
_LONGEST_REMEMBERED, _MOST_REMEMBERED = 128, 4_096
_harmless_texts: set[str] = set()
"""Suspect texts that hold none: pins and digests come again and again. A card number is never kept."""


def holds_raw_identifier(text: str) -> bool:
    """Whether the text is a card number, or holds one."""
    if len(text) < LEAST_DIGITS or not text_is_suspect(text) or text in _harmless_texts:
        return False
    if _spans(text):
        return True
    if len(text) <= _LONGEST_REMEMBERED:
        if len(_harmless_texts) >= _MOST_REMEMBERED:
            _harmless_texts.clear()
        _harmless_texts.add(text)
    return False


def is_raw_key(text: str) -> bool:
    """Whether a text that is to be a key is no entity id where no pattern says otherwise: an observed identifier, or a bare
    fingerprint, which is hexadecimal and at least 32 digits long.
    """
    return is_observed_identifier(text) or (len(text) >= _SHORTEST_FINGERPRINT and _is_fingerprint(text))


def is_observed_identifier(text: str) -> bool:
    """Whether a text can be no entity id, whoever says so: it holds a card number, or is an IBAN, an e-mail or IP address (with
    or without a port or a mask).
    """
    if holds_raw_identifier(text) or ("@" in text and _EMAIL.search(text) is not None):
        return True
    if (text.count(".") == 3 or text.count(":") >= 2) and _is_address(text):
        return True
    return len(text) >= _SHORTEST_IBAN and _is_iban(text)


def _is_address(text: str) -> bool:
    host = _PORT_OR_MASK.sub("", text) if text.count(":") <= 1 or text.startswith("[") else text.partition("/")[0]
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_iban(text: str) -> bool:
    account = text.replace("-", "").upper()
    if _IBAN.fullmatch(account) is None:
        return False
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def _is_fingerprint(text: str) -> bool:
    plain = text.replace(":", "")
    is_mixed = not plain.isdigit() and not plain.isalpha()
    return len(plain) >= _SHORTEST_FINGERPRINT and is_mixed and _HEXADECIMAL.fullmatch(plain) is not None


def without_raw_identifier(text: str) -> str:
    """The text itself, as a validator of fields.

    Raises:
        ValueError: it holds a card number, which the message does not show.
    """
    if holds_raw_identifier(text):
        raise ValueError("a raw identifier (13 to 19 digits that pass the Luhn check) is refused")
    return text


def text_is_suspect(text: str) -> bool:
    """Whether the text may hold a card number; False is certain. Of several texts joined by a letter, whether one may."""
    return _SUSPECT in text.encode("utf-8", "surrogatepass").translate(_KINDS, _BETWEEN)


def json_is_suspect(canonical: bytes) -> bool:
    """Whether a string or a name in an RFC 8785 text may hold a card number; several texts are joined by a letter."""
    # an escape may be a separator, and is letters
    return _SUSPECT in canonical.translate(_KINDS, _BETWEEN) or b"\\" in canonical


def redact(text: str) -> str:
    """The text with every card number in it replaced."""
    if not holds_raw_identifier(text):
        return text
    parts, end = [], 0
    for start, stop in sorted(_spans(text)):
        if start >= end:
            parts += [text[end:start], "<raw identifier>"]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def raw_identifier_in(value: object) -> str | None:
    """The path of the first string (or object key) in a payload that holds a card number, or None; never the value itself."""
    if not any(len(text) >= LEAST_DIGITS and holds_raw_identifier(text) for text in _texts_of(value)):
        return None  # as nearly always, and found without a path for each text
    pending = [(value, "payload")]  # a list, not recursion: a payload may be nested deeper than the interpreter's stack
    while pending:
        item, place = pending.pop()
        if isinstance(item, str):
            if holds_raw_identifier(item):
                return place
        elif isinstance(item, dict):
            if any(map(holds_raw_identifier, item)):
                return f"{place}.<key>"
            pending.extend((child, f"{place}.{key}") for key, child in reversed(item.items()))
        elif isinstance(item, list):
            pending.extend((child, f"{place}[{index}]") for index, child in reversed(list(enumerate(item))))
    return None


def _texts_of(value: object) -> list[str]:
    """The strings and the names in a payload."""
    texts: list[str] = []
    pending = [value]
    for part in pending:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            texts.extend(part)
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return texts


def _spans(text: str) -> list[tuple[int, int]]:
    """Where card numbers stand in a text: `[start, stop)` of each, in no order; they may overlap."""
    plain = text if text.isascii() else text.translate(_CHARACTERS)
    whole = _WHOLE.fullmatch(plain)
    if whole is not None:
        written_text = whole.group(1)
        is_other = _DECIMAL.fullmatch(written_text) or _DATE.match(written_text)
        if not is_other and _passes(_digits(written_text)):
            return [whole.span(1)]
    plain = _TOKEN.sub(_without_name, _UUID.sub(_blacked, plain))
    spans = []
    for run in _RUN.finditer(plain):
        if whole is None and _is_inside(run.group()):
            spans.append(run.span())
    for layout in _LAYOUTS:
        for match in layout.finditer(plain):
            digits = _digits(match.group(1))
            if not digits.startswith(("19", "20")) and _is_inside(digits):
                spans.append(match.span(1))
    return spans


def _is_inside(digits: str) -> bool:
    """Whether digits inside a longer text are a card number."""
    number = digits.lstrip("0")
    return LEAST_DIGITS <= len(number) <= MOST_DIGITS and _EPOCH.fullmatch(number) is None and _passes(number)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _passes(digits: str) -> bool:
    """The Luhn check."""
    numbers = [int(digit) for digit in digits]
    return (sum(numbers[-1::-2]) + sum(sum(divmod(2 * number, 10)) for number in numbers[-2::-2])) % 10 == 0


def _blacked(match: re.Match[str]) -> str:
    return "x" * len(match.group())


def _without_name(match: re.Match[str]) -> str:
    """A token, or as many letters where it is a hexadecimal name: one with letters and digits besides its run of digits."""
    token = match.group()
    run = _RUN.search(token)
    if run is None or _HEXADECIMAL.fullmatch(token) is None:
        return token
    rest = token[: run.start()] + token[run.end() :]
    return _blacked(match) if any(map(str.isdigit, rest)) else token


class _Characters(dict[int, str]):
    """For str.translate: what each character is to this rule, one character each."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 0x80:
            return character
        digit = unicodedata.digit(character, None)
        if digit is not None:
            return str(digit)
        category = unicodedata.category(character)
        if category == "Pd" or character in _MINUS:
            return "-"
        if character in _DOTS:
            return "."
        if category[0] in "ZC" or category in ("Mn", "Me"):
            return " "
        return "x" if category[0] in "LN" else "|"


_CHARACTERS = _Characters()
