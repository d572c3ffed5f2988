"""Text files: one rule for the byte order mark and for the ends of lines."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ofp_platform.vocabulary.text_file import lines_of, read_text


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        ("a\u2028b\u2029c\u0085d\ne".encode(), ["a\u2028b\u2029c\u0085d".encode(), b"e"]),
        (b"a\rb\x0bc\x0cd\x1ce\n", [b"a\rb\x0bc\x0cd\x1ce"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [b"a", b"\xef\xbb\xbfb"]),
    ],
)
def test_lines_end_with_a_line_feed(content: bytes, lines: list[bytes]) -> None:
    assert list(lines_of(io.BytesIO(content))) == lines


def test_the_mark_is_not_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffa: é\r\n".encode())
    assert read_text(path) == "a: é\r\n"
    path.write_bytes("a".encode("utf-16"))
    with pytest.raises(UnicodeDecodeError):
        read_text(path)
