"""The door of the profile's run, for the commands that send something through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ofp_platform.ingress.door import Door
    from ofp_platform.online.plane import Plane


def door_of(plane: Plane) -> Door:
    """Open it; streams that are not there yet are made.

    Raises:
        IngressRefused | LogUnavailable | ObjectStoreUnavailable: see Door.open.
    """
    from ofp_platform.ingress.door import Door
    from ofp_platform.online.plane import profile_pack

    profile = plane.profile
    context = None if profile.context_stream is None else plane.context_log(create=True)
    return Door.open(plane.pool, plane.log, context, plane.objects, profile.context_pins, profile_pack(profile))
