"""A bundle as an object: written once under its digest, before anything says that it is there."""

from __future__ import annotations

from ofp_platform.storage.bundle_events import bundle_path
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleRef


def put_bundle(objects: ObjectStore, bundle: Bundle) -> BundleRef:
    """Write a bundle, or find it written; how decisions name it.

    Raises:
        ObjectConflict: other bytes stand under its digest. ObjectStoreUnavailable: the store does not answer.
    """
    objects.put_same(bundle_path(bundle.ref), bundle.stored())
    crash_point("bundle.object_put")
    return bundle.ref
