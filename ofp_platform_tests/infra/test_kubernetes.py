"""The manifests for Kubernetes: of the schema, confined, secrets by reference, of one mind with profile and Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment, split_source
from ofp_platform.storage.roles import Job
from ofp_platform.vocabulary.profile import Tier, load_profile

BASE = Path(__file__).parents[2] / "infra" / "kubernetes" / "base"
OVERLAYS = BASE.parent / "overlays"
VERSION = "1.32"


def documents(path: Path) -> list[dict[str, Any]]:
    return [dict(document) for document in YAML(typ="safe").load_all(path.read_text(encoding="utf-8"))]


def resources() -> list[dict[str, Any]]:
    (kustomization,) = documents(BASE / "kustomization.yaml")
    return [document for name in kustomization["resources"] for document in documents(BASE / name)]


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, labels and content of each pod that a workload makes."""
    for resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = resource["spec"]["template"]
            yield resource["metadata"]["name"], template["metadata"]["labels"], template["spec"]


@pytest.mark.parametrize("resource", resources(), ids=lambda resource: f"{resource['kind']}-{resource['metadata']['name']}")
def test_each_is_of_the_schema(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, VERSION, strict=True)


def test_the_plane_is_whole_and_every_file_is_named() -> None:
    assert {name for name, _, _ in pods()} == {
        *("migrate", "serving", "projector", "archiver"),
        *("dagster-daemon", "dagster-webserver"),
    }
    (kustomization,) = documents(BASE / "kustomization.yaml")
    files = [entry.rpartition("=")[2] for part in kustomization["configMapGenerator"] for entry in part["files"]]
    named = {*kustomization["resources"], *files, "kustomization.yaml"}
    assert named == {path.name for path in BASE.iterdir()}
    for overlay in OVERLAYS.iterdir():
        (content,) = documents(overlay / "kustomization.yaml")
        assert (overlay / content["resources"][0]).resolve() == BASE


def test_every_pod_is_confined() -> None:
    for name, labels, pod in pods():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert labels["app.kubernetes.io/part-of"] == "ofp"
        assert pod["serviceAccountName"] == "ofp-dagster" or pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_references_and_each_job_has_its_role() -> None:
    (kustomization,) = documents(OVERLAYS / "production" / "kustomization.yaml")
    settings = {f"OFP_{name.upper()}" for name in Environment.model_fields}
    others = {"NUMBA_CACHE_DIR", "HOME", "DAGSTER_HOME", "OFP_DAGSTER_CONFIG_MAP", "SHARDS", "POD_NAME"}
    roles = {}
    for name, _, pod in pods():
        (container,) = pod["containers"]
        assert {entry["name"] for entry in container["env"]} <= settings | others, name
        assert not any("://" in entry.get("value", "") for entry in container["env"])
        secrets = [entry["secretRef"]["name"] for entry in container["envFrom"] if "secretRef" in entry]
        (roles[name],) = [secret.removeprefix("ofp-database-") for secret in secrets if secret.startswith("ofp-database-")]
    assert set(roles.values()) <= {"owner", *Job}
    assert (roles["serving"], roles["projector"], roles["archiver"], roles["migrate"]) == (
        *("serving", "projector", "offline"),
        "owner",
    )
    wiring = {entry.partition("=")[0] for part in kustomization["configMapGenerator"] for entry in part["literals"]}
    assert wiring <= settings | {"AWS_DEFAULT_REGION"}
    assert not [resource for resource in resources() if resource["kind"] == "Secret"]


def test_all_name_one_tier_of_a_profile_that_is_one() -> None:
    for _, _, pod in pods():
        first = pod["containers"][0]["env"][0]
        assert first["name"] == "OFP_PROFILE"  # what the overlay local_parity replaces
        assert split_source(first["value"]) == ("/etc/ofp/profile.yaml", Tier.PRODUCTION)
    (overlay,) = documents(OVERLAYS / "local_parity" / "kustomization.yaml")
    assert "path: /spec/template/spec/containers/0/env/0/value" in overlay["patches"][0]["patch"]
    assert "@local_parity" in overlay["patches"][0]["patch"]
    for tier in Tier:
        assert load_profile(BASE / "profile.yaml", tier).log_kind == "kinesis"


def test_runs_of_dagster_are_confined_as_pods_are() -> None:
    (instance,) = documents(BASE / "dagster-instance.yaml")
    assert instance["run_launcher"]["class"] == "K8sRunLauncher"
    launched = instance["run_launcher"]["config"]["run_k8s_config"]
    container = launched["container_config"]["security_context"]
    assert container["read_only_root_filesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert launched["pod_spec_config"]["security_context"]["run_as_non_root"] is True
    mounted = {mount["name"] for mount in launched["container_config"]["volume_mounts"]}
    assert mounted == {volume["name"] for volume in launched["pod_spec_config"]["volumes"]}
    assert instance["concurrency"]["pools"]["default_limit"] == 1


def test_nothing_is_reached_that_no_policy_names() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in resources() if policy["kind"] == "NetworkPolicy"}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    labels = [labels for _, labels, _ in pods()]
    for name, policy in policies.items():
        selector = policy["podSelector"].get("matchLabels", {})
        assert any(selector.items() <= pod.items() for pod in labels), name
    open_ports = {port["port"] for policy in policies.values() for way in policy.get("ingress", []) for port in way["ports"]}
    listening = {port["containerPort"] for _, _, pod in pods() for port in pod["containers"][0].get("ports", [])}
    assert open_ports == listening
