"""Runs in Feast's environment: makes a feature repository of two feature views and fills its online store.

`feast_online.py FOLDER STORE`: FOLDER holds one Parquet file a feature view, named as the view: the column of its key, then its
features (int64 or float64). STORE is the online store's configuration as JSON.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType


def main() -> None:
    """Apply and fill."""
    folder, online = Path(sys.argv[1]), json.loads(sys.argv[2])
    settings = {
        "project": "benchmark",
        "provider": "local",
        # 0: what was read once of the registry stays in memory
        "registry": {"registry_type": "file", "path": str(folder / "registry.db"), "cache_ttl_seconds": 0},
        "online_store": online,
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = FeatureStore(repo_path=str(folder))
    for path in sorted(folder.glob("*.parquet")):
        values = pd.read_parquet(path)
        values["event_timestamp"] = pd.Timestamp.now(tz="UTC")
        key, *features = [name for name in values.columns if name != "event_timestamp"]
        entity = Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
        schema = [Field(name=name, dtype=Int64 if values[name].dtype == "int64" else Float64) for name in features]
        source = FileSource(name=f"{path.stem}_file", path=str(path), timestamp_field="event_timestamp")
        view = FeatureView(name=path.stem, entities=[entity], ttl=timedelta(0), schema=schema, source=source)
        store.apply([entity, source, view])
        store.write_to_online_store(view.name, values)


if __name__ == "__main__":
    main()
