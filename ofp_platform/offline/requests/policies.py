"""Build policies: those that ship with the package, and those that a deployment declares beside its pack.

A revision never changes: its content is part of every dataset's identity. Of a policy that ships, the package holds that; one of
a deployment's own is named with its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from ofp_platform.registry.pack_text import PackError, PackErrors, PackText
from ofp_platform.registry.shape import suggestion
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.offline.build_intent import PolicyRef
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.text_file import read_text

FILE_NAME = "build_policies.yaml"

Policies = Mapping[tuple[str, int], BuildPolicy]
"""Policies by id and revision."""


@cache
def shipped_policies() -> Policies:
    """Those of the package, in order. Treat as read-only."""
    folder = resources.files("ofp_platform.offline.requests").joinpath("policy_files")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return _by_revision([BuildPolicy.model_validate(YAML(typ="safe").load(file.read_text(encoding="utf-8"))) for file in files])


def _by_revision(policies: list[BuildPolicy]) -> Policies:
    return {
        (policy.policy_id, policy.revision): policy
        for policy in sorted(policies, key=lambda policy: (policy.policy_id, policy.revision))
    }


@dataclass(frozen=True)
class BuildPolicies:
    """The policies that a deployment may build under: the shipped ones, and `declared`."""

    declared: Policies = field(default_factory=dict)

    def resolve(self, ref: PolicyRef) -> BuildPolicy:
        """The policy of that id and revision, with the content that the reference means.

        Raises:
            BuildRefused: POLICY_UNRESOLVED.
        """
        key = (ref.policy_id, ref.revision)
        policies = {**shipped_policies(), **self.declared}
        policy = policies.get(key)
        if policy is None:
            raise _unresolved(ref, policies)
        if ref.digest is None and key in self.declared:
            raise BuildRefused(
                BuildReason.POLICY_UNRESOLVED,
                f"a policy of {FILE_NAME} is named with its digest, so that the request says which content it means:"
                f" {policy.digest}",
                "policy.digest",
            )
        if ref.digest not in (None, policy.digest):
            raise BuildRefused(
                BuildReason.POLICY_UNRESOLVED,
                f"policy {ref.policy_id} revision {ref.revision} has the digest {policy.digest} here: it was changed since the"
                " request was written. Give a change a revision of its own",
                "policy.digest",
            )
        return policy

    def reference(self, policy_id: str, revision: int | None = None) -> PolicyRef:
        """The reference of a policy, by default of its newest revision; with the digest where it is a declared one.

        Raises:
            BuildRefused: POLICY_UNRESOLVED.
        """
        policies = {**shipped_policies(), **self.declared}
        revisions = [number for name, number in policies if name == policy_id]
        number = revision or max(revisions, default=1)
        policy = policies.get((policy_id, number))
        if policy is None:
            raise _unresolved(PolicyRef(policy_id=policy_id, revision=number), policies)
        is_declared = (policy_id, number) in self.declared
        return PolicyRef(policy_id=policy_id, revision=number, digest=policy.digest if is_declared else None)


SHIPPED_ALONE = BuildPolicies()


def _unresolved(ref: PolicyRef, policies: Policies) -> BuildRefused:
    revisions = [str(revision) for policy_id, revision in policies if policy_id == ref.policy_id]
    if revisions:
        text = f"this policy has revision {', '.join(revisions)}, not the one asked for"
        return BuildRefused(BuildReason.POLICY_UNRESOLVED, text, "policy.revision")
    policy_ids = ", ".join(sorted({policy_id for policy_id, _ in policies}))
    text = f"there is no such policy; there are {policy_ids}. One of your own is declared in {FILE_NAME} beside the pack"
    return BuildRefused(BuildReason.POLICY_UNRESOLVED, text, "policy.policy_id")


class _PolicyFile(Model):
    policies: tuple[BuildPolicy, ...] = Field(default=(), strict=False)


def policies_of(profile: Profile) -> BuildPolicies:
    """The shipped policies, and those of the file beside a pack of one's own; without that file the shipped ones alone.

    Raises:
        PackErrors: the file cannot be used; each fault with file, line, field and what was probably meant.
    """
    file = Path(profile.pack).with_name(FILE_NAME)
    if not profile.pack.endswith(".yaml") or not file.exists():
        return BuildPolicies()
    try:
        text = PackText(read_text(file), str(file))
    except UnicodeDecodeError:
        raise PackErrors([PackError(str(file), 0, "", "is not UTF-8 text")]) from None
    if text.data is None:
        text.raise_if_wrong()
        return BuildPolicies()  # all of it is a comment
    declared: list[BuildPolicy] = []
    try:
        declared.extend(_PolicyFile.model_validate(text.data).policies)
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            _report(text, error["loc"], error["type"], error["msg"])
    seen: set[tuple[str, int]] = set()
    shipped_ids = {policy_id for policy_id, _ in shipped_policies()}
    for index, policy in enumerate(declared):
        key = (policy.policy_id, policy.revision)
        if policy.policy_id in shipped_ids:
            text.report(("policies", index, "policy_id"), "a policy of this id ships with the package; choose another id")
        elif key in seen:
            text.report(("policies", index, "revision"), "this revision of the policy is declared twice")
        seen.add(key)
    text.raise_if_wrong()
    return BuildPolicies(_by_revision(declared))


def _report(text: PackText, path: tuple[str | int, ...], kind: str, message: str) -> None:
    if kind == "extra_forbidden":
        model = BuildPolicy if len(path) > 1 else _PolicyFile
        message = f"there is no such field{suggestion(path[-1], model.model_fields)}"
    elif kind == "missing":
        message = "this field is required"
    text.report(path, message.removeprefix("Value error, "))
