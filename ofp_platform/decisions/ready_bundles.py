"""Bundles and their models out of the object store, held against their digests, ready to decide; each is loaded once."""

from __future__ import annotations

from dataclasses import dataclass, field

from ofp_platform.decisions.deciding import ReadyBundle
from ofp_platform.storage.bundle_events import load_bundle, load_bundle_model
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import BundleRef


@dataclass(frozen=True)
class ReadyBundles:
    """Loads from one object store. Safe for threads."""

    objects: ObjectStore
    _loaded: dict[BundleRef, ReadyBundle] = field(default_factory=dict, init=False, repr=False)

    def load(self, ref: BundleRef) -> ReadyBundle:
        """The bundle, with its model.

        Raises:
            BundleDamaged: it or its model is not there, or is another one. ObjectStoreUnavailable: see there.
        """
        if ref not in self._loaded:
            bundle = load_bundle(self.objects, ref)
            model = None if bundle.model is None else load_bundle_model(self.objects, bundle.model)
            self._loaded[ref] = ReadyBundle(bundle, model)
        return self._loaded[ref]
