"""The identities of a projection as the store has them, read the plain way: all runs, and all pages of whole segments."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg import Connection

from ofp_platform.online.state.identity_pages import Words, unpack_pages

_PAGES = """
SELECT p.content FROM ofp.identity_page AS p JOIN ofp.identity_segment AS s USING (projection_id, segment_id)
WHERE projection_id = %s AND s.state = 'whole'
"""


def stored_identities(connection: Connection[Any], projection_id: int, width: int = 6) -> Words:
    """All of them, uint64[n, width], in no order."""
    runs = connection.execute("SELECT content FROM ofp.identity_run WHERE projection_id = %s", (projection_id,)).fetchall()
    pages = connection.execute(_PAGES, (projection_id,)).fetchall()
    parts = [np.frombuffer(content, np.uint64).reshape(-1, width) for (content,) in runs]
    if pages:
        parts.append(unpack_pages([content for (content,) in pages], width))
    return np.concatenate([np.zeros((0, width), np.uint64), *parts])
