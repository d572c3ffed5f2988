"""Entity tables: the rows of a dataset as somebody brings them, kept under the digest of their content.

A table has a column `<key type>_id` for each of its key types by name, `as_of_time_utc`, and any others. It is put once, before
the intent that names it; how its file is encoded is no part of the digest.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore, ObjectStoreUnavailable
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_intent import PerTable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

AS_OF = "as_of_time_utc"
_KEY = "_id"


def table_path(pins: ContextPins, digest: str) -> str:
    """Where the entity table of a run stands in the object store."""
    return f"ofs/entity_tables/{pins_digest(pins)[:32]}/{digest}.parquet"


def table_scope(table: pa.Table, label_columns: Sequence[str] = ()) -> PerTable:
    """The scope that a table gives.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, it has no row.
    """
    if not table.num_rows:
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "the entity table has no row", "scope.table")
    place = table.schema.get_field_index(AS_OF)
    return PerTable.model_validate(
        {
            "table": _digest(table),
            "rows": table.num_rows,
            "key_types": [name.removesuffix(_KEY) for name in table.column_names[:place]],
            "columns": table.column_names[place + 1 :],
            "label_columns": list(label_columns),
        }
    )


def store_entity_table(objects: ObjectStore, pins: ContextPins, table: pa.Table, scope: PerTable) -> str:
    """Put a table where builds of the run find it; the path. The same table again changes nothing.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    path = table_path(pins, scope.table)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    objects.put_if_absent(path, sink.getvalue())
    return path


def load_entity_table(objects: ObjectStore, pins: ContextPins, scope: PerTable) -> pa.Table:
    """The table of a scope, held against its digest and against what the scope says of it.

    Raises:
        BuildRefused: INVALID_INTENT, no such table is stored for the run, or it is another one; STORE_UNAVAILABLE.
    """
    path = table_path(pins, scope.table)
    try:
        table = pq.read_table(io.BytesIO(objects.get(path))).replace_schema_metadata(None)
        digest = _digest(table)
    except ObjectNotFound:
        text = f"no such entity table of this run is stored ({path}): `ofp dataset from-entities` puts it there"
        raise BuildRefused(BuildReason.INVALID_INTENT, text, "scope.table") from None
    except ObjectStoreUnavailable as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None
    except (pa.ArrowException, TypeError, OSError):
        digest = "none: it is no table of a dataset's columns"
    if digest != scope.table:
        text = f"the entity table in {path} was changed since it was stored; its content digest is {digest}"
        raise BuildRefused(BuildReason.INVALID_INTENT, text, "scope.table")
    if table_scope(table, scope.label_columns) != scope or pc.sum(table[AS_OF].is_null()).as_py():
        text = "rows, key types or columns of the entity table are not those that the scope names"
        raise BuildRefused(BuildReason.INVALID_INTENT, text, "scope")
    return table


def _digest(table: pa.Table) -> str:
    digest = ContentDigest(table.schema)
    digest.update(table)
    return digest.hexdigest()
