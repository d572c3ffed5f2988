"""Assets of a group: what all of them have in common is said once."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from ofp_platform.orchestration.log.event_assets import OWNERS

CODE_VERSION = "1"


def group_asset(
    group: str,
    key: dg.AssetKey,
    *,
    deps: Sequence[dg.AssetKey | dg.AssetDep] = (),
    description: str,
    check_specs: Sequence[dg.AssetCheckSpec],
    kind: str = "postgres",
    code_version: str = CODE_VERSION,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The decorator of an asset of a group, without partitions, that looks at something and checks it."""
    return dg.asset(
        key=key,
        deps=deps,
        description=description,
        group_name=group,
        kinds={kind},
        owners=OWNERS,
        code_version=code_version,
        check_specs=check_specs,
    )
