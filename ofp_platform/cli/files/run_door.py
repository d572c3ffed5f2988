"""The door of the profile's run, or whatever leads into its log, for the commands that send something."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ofp_platform.ingress.door import Door
    from ofp_platform.ingress.entrance import Entrance
    from ofp_platform.online.plane import Plane


def door_of(plane: Plane) -> Door:
    """Open it; streams that are not there yet are made.

    Raises:
        IngressRefused | LogUnavailable | ObjectStoreUnavailable: see `open_door`.
    """
    from ofp_platform.ingress.class_map import class_map_in_force
    from ofp_platform.ingress.open_door import open_door
    from ofp_platform.online.plane import profile_pack

    profile = plane.profile
    context = None if profile.context_stream is None else plane.context_log(create=True)
    needs_ready = profile.control_stream is not None
    class_map = class_map_in_force(profile, profile_pack(profile))
    return open_door(plane.pool, plane.log, context, plane.objects, profile.context_pins, class_map, needs_ready=needs_ready)


def entrance_of(plane: Plane) -> Entrance:
    """The way into the log; streams that are not there yet are made.

    Raises:
        IngressRefused | LogUnavailable | ObjectStoreUnavailable: see `open_door`.
    """
    from ofp_platform.ingress.entrance import Entrance

    return Entrance(door_of(plane))
