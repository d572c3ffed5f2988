"""Feast as a peer: a repository with the values of the serving benchmark, and the same questions in its words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.load import post
from benchmarks.peer import PeerUnavailable

VERSION = "0.67"
PATH = "/get-online-features"
_SCRIPT = Path(__file__).parent / "peers" / "feast_online.py"


def repository(python: Path, folder: Path, store: Mapping[str, object], values: Mapping[str, pa.Table]) -> Path:
    """A folder for `feast serve`: one feature view a table, everything in the online store.

    Raises:
        PeerUnavailable: Feast refused.
    """
    folder.mkdir()
    for view, table in values.items():
        pq.write_table(table, folder / f"{view}.parquet")
    process = subprocess.run([python, _SCRIPT, folder, json.dumps(store)], capture_output=True, text=True, check=False)
    if process.returncode:
        raise PeerUnavailable(f"Feast's repository could not be made: {process.stderr.strip()[-300:]}")
    return folder


def requests(bodies: list[bytes], values: Mapping[str, pa.Table]) -> list[bytes]:
    """The requests for the same keys and features; without the as-of time, because Feast serves what is stored.

    The features are named one by one: by a feature service it answers half as fast (432 against 916 a second, one connection).
    """
    features = [f"{view}:{name}" for view, table in values.items() for name in table.column_names[1:]]
    posts: list[bytes] = []
    for body in bodies:
        account, merchant = (key["key_id"] for key in orjson.loads(body)["feature_keys"])
        entities = {"customer_id": [account], "terminal_id": [merchant]}
        posts.append(post(PATH, orjson.dumps({"features": features, "entities": entities})))
    return posts


def check(answer: bytes, values: Mapping[str, pa.Table]) -> None:
    """Stop the benchmark unless an answer holds what was stored: a peer that answers nothing is quick.

    Raises:
        SystemExit: it does not.
    """
    content = orjson.loads(answer)
    names = content["metadata"]["feature_names"]
    answer_values = {name: result["values"][0] for name, result in zip(names, content["results"], strict=True)}
    for table in values.values():
        key = table.column_names[0]
        row = table.filter(pa.compute.equal(table[key], answer_values[key])).to_pylist()[0]
        if differing := {name for name, value in row.items() if answer_values.get(name) != value}:
            raise SystemExit(f"Feast answers {answer_values}, not what it was given: {sorted(differing)} of {row}")
