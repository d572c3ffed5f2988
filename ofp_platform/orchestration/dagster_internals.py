"""All that is used of Dagster's private parts, so that an upgrade breaks here and nowhere else.

The bound of dagster in pyproject.toml holds the versions that have them.
"""

from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._serdes import ConfigurableClassData

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "ConfigurableClassData",
    "ModuleTarget",
    "WorkspaceProcessContext",
]
