"""Run by the peer's own interpreter: twelve windowed values of every transaction by Flink SQL; the last line says what it took.

`python flink_windows.py FOLDER ROWS LIMIT_SECONDS PORT`. FOLDER holds `transactions.csv` (customer, terminal, amount, time in
milliseconds; in time order) and takes the checkpoints. This script only submits the job and asks how far it is.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

KEYS = ("customer", "terminal")
DAYS = (1, 7, 30)
SETTINGS = {
    "parallelism.default": "2",
    "taskmanager.numberOfTaskSlots": "2",
    "state.backend.type": "hashmap",
    "pipeline.object-reuse": "true",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.interval": "10s",
    "execution.checkpointing.storage": "filesystem",
    "metrics.fetcher.update-interval": "500",
}


def environment(folder: Path, port: int) -> TableEnvironment:
    """A cluster in one Java process, with both cores."""
    configuration = Configuration()
    for name, value in SETTINGS.items():
        configuration.set_string(name, value)
    configuration.set_string("execution.checkpointing.dir", f"file://{folder}/checkpoints")
    configuration.set_string("rest.port", str(port))
    configuration.set_string("rest.bind-port", str(port))
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    return TableEnvironment.create(settings)


def submit(tables: TableEnvironment, folder: Path) -> Any:
    """One chain of OVER aggregations: Flink allows one window per SELECT, so each view adds one window's count and mean."""
    tables.execute_sql(
        "CREATE TABLE transactions (customer BIGINT, terminal BIGINT, amount BIGINT, ms BIGINT,"
        " ts AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)"
        f" WITH ('connector' = 'filesystem', 'path' = 'file://{folder}/transactions.csv', 'format' = 'csv')"
    )
    source, columns = "transactions", []
    for key in KEYS:
        for days in DAYS:
            view = f"{key}_{days}"
            tables.execute_sql(
                f"CREATE TEMPORARY VIEW {view} AS"
                f" SELECT *, COUNT(amount) OVER w AS count_{view}, AVG(amount) OVER w AS mean_{view} FROM {source}"
                f" WINDOW w AS (PARTITION BY {key} ORDER BY ts RANGE BETWEEN INTERVAL '{days}' DAY PRECEDING AND CURRENT ROW)"
            )
            source = view
            columns += [f"count_{view}", f"mean_{view}"]
    column_list = ", ".join(f"{column} BIGINT" for column in columns)
    tables.execute_sql(
        f"CREATE TABLE features (customer BIGINT, terminal BIGINT, ms BIGINT, {column_list}) WITH ('connector' = 'blackhole')"
    )
    return tables.execute_sql(f"INSERT INTO features SELECT customer, terminal, ms, {', '.join(columns)} FROM {source}")


def rest_answer(port: int, path: str) -> dict[str, Any]:
    """An answer of the job's REST interface; empty when it has none (any more)."""
    with (
        contextlib.suppress(urllib.error.URLError, OSError, TimeoutError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer,
    ):
        return dict(json.load(answer))
    return {}


def main() -> None:
    """Submit, look on until it is done or the limit is reached, say what was seen."""
    folder, rows, limit, port = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    client = submit(environment(folder, port), folder).get_job_client()
    job = client.get_job_id()
    execution = client.get_job_execution_result()
    began: float | None = None
    deadline = time.time() + limit
    report: dict[str, Any] = {"rows": 0, "seconds": 0.0, "checkpoints": 0, "finished": False}
    while True:
        is_finished = execution.done()
        now = time.time()
        details = {} if is_finished else rest_answer(port, f"/jobs/{job}")
        if began is None and (running := details.get("timestamps", {}).get("RUNNING")):
            began = running / 1000
            deadline = began + limit
        if is_finished:
            execution.result()  # a job that failed says so here
            if began is None:
                raise SystemExit("the job ended before its REST interface was seen: give it more rows")
            report |= {"rows": rows, "seconds": now - began, "finished": True}
            break
        if began is not None and details.get("vertices"):
            # the last window's operator: what it has taken has been through all six
            report |= {"rows": details["vertices"][-1]["metrics"]["read-records"], "seconds": now - began}
            if counts := rest_answer(port, f"/jobs/{job}/checkpoints").get("counts"):
                report["checkpoints"] = counts["completed"]
        if now >= deadline:
            with contextlib.suppress(Py4JError):
                client.cancel().result()
            break
        time.sleep(0.5)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
