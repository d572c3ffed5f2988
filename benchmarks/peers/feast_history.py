"""Runs in Feast's environment: get_historical_features over Parquet files, by one offline store.

`feast_history.py FOLDER STORE`: FOLDER holds entities.parquet (the keys, event_timestamp) and one Parquet file a feature view,
named as the view: event_timestamp, its key, its features. STORE: dask or duckdb. The last line that it prints is a JSON object:
the seconds from the call to the table, the peak of the process in bytes, the rows and how many of them got all features.
"""

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType


def main() -> None:
    """Measure."""
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    home = folder / kind
    home.mkdir()
    settings = {
        "project": "benchmark",
        "provider": "local",
        "registry": {"registry_type": "file", "path": str(home / "registry.db"), "cache_ttl_seconds": 0},
        "online_store": {"type": "sqlite", "path": str(home / "online.db")},
        "offline_store": {"type": kind},
        "entity_key_serialization_version": 3,
    }
    (home / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = FeatureStore(repo_path=str(home))
    feature_names = []
    for path in sorted(folder.glob("*.parquet")):
        if path.stem == "entities":
            continue
        time_column, key, *names = (fields := pq.read_schema(path)).names
        entity = Entity(name=key, join_keys=[key], value_type=ValueType.INT64)
        schema = [Field(name=name, dtype=Int64 if fields.field(name).type == "int64" else Float64) for name in names]
        source = FileSource(name=f"{path.stem}_file", path=str(path), timestamp_field=time_column)
        view = FeatureView(name=path.stem, entities=[entity], ttl=timedelta(0), schema=schema, source=source, online=False)
        store.apply([entity, source, view])
        feature_names += [f"{path.stem}:{name}" for name in names]
    entities = pd.read_parquet(folder / "entities.parquet")
    # the first call imports what it needs: counted once in a long build, so not at all here
    store.get_historical_features(entity_df=entities.head(100), features=feature_names).to_arrow()
    began = time.perf_counter()
    table = store.get_historical_features(entity_df=entities, features=feature_names).to_arrow()
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    counts = [name for name in table.column_names if "count" in name]
    whole = len(table.select(counts).drop_null())
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "rows": table.num_rows, "whole": whole}))


if __name__ == "__main__":
    main()
