"""Text files from outside: UTF-8, with or without a byte order mark, in lines that end with a line feed and nothing else.

Other characters that end a line for some programs (U+0085, U+2028, U+2029) stand inside JSON texts as they are.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

_MARK = b"\xef\xbb\xbf"
MOST_BYTES = 4_000_000
"""Of a text that somebody wrote: a million characters of four bytes. What is longer is another file than was meant."""


def read_text(path: Path) -> str:
    """The text of a file, without the mark.

    Raises:
        OSError: it cannot be read, or is larger than `MOST_BYTES`. UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MOST_BYTES:,} bytes")
    return content.decode("utf-8-sig")


def lines_of(stream: Iterable[bytes]) -> Iterator[bytes]:
    r"""The lines of an open binary file, without the mark and without their ends, which are `\n` or `\r\n`."""
    for number, line in enumerate(stream):
        yield (line if number else line.removeprefix(_MARK)).removesuffix(b"\n").removesuffix(b"\r")
