"""Bundles and their models out of the object store, held against their digests, ready to decide; each is loaded once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError

from ofp_platform.decisions.deciding import ReadyBundle
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleRef
from ofp_platform.vocabulary.loop.exact_model import ExactModel


class BundleUnusable(Exception):
    """A bundle that is in force, or was, cannot be used; the text says why."""


def bundle_path(ref: BundleRef) -> str:
    """Where a bundle stands."""
    return f"bundles/{ref.bundle_name}/{ref.digest}.json"


@dataclass(frozen=True)
class ReadyBundles:
    """Loads from one object store. Safe for threads."""

    objects: ObjectStore
    _loaded: dict[str, ReadyBundle] = field(default_factory=dict, init=False, repr=False)

    def load(self, ref: BundleRef) -> ReadyBundle:
        """The bundle of a digest, with its model.

        Raises:
            BundleUnusable: it or its model is not there, or is another one. ObjectStoreUnavailable: see there.
        """
        if ref.digest not in self._loaded:
            self._loaded[ref.digest] = self._load(ref)
        return self._loaded[ref.digest]

    def _load(self, ref: BundleRef) -> ReadyBundle:
        name = f"bundle {ref.bundle_name}:{ref.digest[:12]}"
        content = self._content(bundle_path(ref), ref.digest, name)
        try:
            bundle = Bundle.model_validate_json(content)
            if bundle.model is None:
                return ReadyBundle(bundle, None)
            model_name = f"the model of {name}"
            model = ExactModel.model_validate_json(self._content(bundle.model.path, bundle.model.digest, model_name))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise BundleUnusable(f"{name}: cannot be read here: {first['msg']}") from None
        return ReadyBundle(bundle, model)

    def _content(self, path: str, digest: str, name: str) -> bytes:
        try:
            content = self.objects.get(path)
        except ObjectNotFound:
            raise BundleUnusable(f"{name}: there is no object {path}: it was never published here, or somebody took it") from None
        if sha256_hex(content) != digest:
            raise BundleUnusable(f"{name}: object {path} was changed: it is not the one of its digest")
        return content
