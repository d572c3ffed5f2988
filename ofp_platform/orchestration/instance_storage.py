"""Where Dagster keeps its runs, events and ticks: the PostgreSQL that is named, or else the embedded one.

`dagster.yaml` can take an address from an environment variable, but not do without one. With this class `dagster dev`
works in a fresh clone where nothing is set, on the same backend as everywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy.engine import make_url

from ofp_platform.orchestration.dagster_internals import ConfigurableClassData
from ofp_platform.storage.dagster_schema import DAGSTER_SCHEMA, ensure_dagster_schema
from ofp_platform.storage.embedded import start_embedded
from ofp_platform.storage.postgres import sqlalchemy_url

ADDRESS = "OFP_DAGSTER_POSTGRES_URL"


class PlatformPostgresStorage(DagsterPostgresStorage):
    """Dagster's storage in a schema of its own, at OFP_DAGSTER_POSTGRES_URL or embedded under OFP_HOME (default .ofp)."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No settings in dagster.yaml: both come from the environment."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformPostgresStorage:
        """The storage; starts the embedded server if no address is named.

        The address may be of any form that PostgreSQL's own programs take.

        Raises:
            DatabaseUnavailable: nothing answers at the address. NoDagsterSchema: see there.
        """
        address = os.environ.get(ADDRESS)
        if not address:
            address = start_embedded(Path(os.environ.get("OFP_HOME", ".ofp")) / "postgres")
            # web server, daemon and run workers are children: they find the server without each holding it open
            os.environ[ADDRESS] = address
        ensure_dagster_schema(address)
        return cls(postgres_url=with_search_path(sqlalchemy_url(address)), inst_data=inst_data)


def with_search_path(url: str) -> str:
    """The URL with Dagster's schema as search path, behind what options it has."""
    made_url = make_url(url)
    given = made_url.query.get("options", "")
    options = given if isinstance(given, str) else " ".join(given)
    options = f"{options} -csearch_path={DAGSTER_SCHEMA}".strip()
    address, _, query = made_url.update_query_dict({"options": options}).render_as_string(hide_password=False).partition("?")
    return f"{address}?{query.replace('+', '%20')}"  # libpq takes a plus for a plus
