"""The files of infra/: they parse, they name what exists, and they hold no secret."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ofp_platform.api.http_metrics import HttpMetrics
from ofp_platform.cli.environment import Environment
from ofp_platform.online.service.counters import Counters
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.profile import load_profile

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|SESSION|ACCESS_KEY")
FROM_ENVIRONMENT = re.compile(r"\$\{(OFP_[A-Z0-9_]+)(?::[?-][^}]*)?\}")


def yaml(name: str) -> Any:
    return YAML(typ="safe").load((INFRA / name).read_text(encoding="utf-8"))


def composed(section: str) -> dict[str, dict[str, Any]]:
    """One section of all compose files, as they are when each is given."""
    parts: dict[str, dict[str, Any]] = {}
    for path in sorted(INFRA.glob("compose*.yaml")):
        parts |= yaml(path.name).get(section, {})
    return parts


def services() -> dict[str, dict[str, Any]]:
    return composed("services")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((INFRA / "grafana/dashboards/feature_plane.json").read_text(encoding="utf-8"))
    return list(dashboard["panels"])


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def test_the_plane_is_whole() -> None:
    assert {"postgres", "migrate", "projector", "serving", "dagster-webserver", "dagster-daemon"} <= set(services())
    assert {"objects", "prometheus", "grafana"}.isdisjoint(yaml("compose.yaml")["services"])
    assert {"objects", "prometheus", "grafana"} <= set(services())


def test_every_service_waits_for_what_exists() -> None:
    for service in services().values():
        for name, rule in service.get("depends_on", {}).items():
            assert name in services()
            if rule["condition"] == "service_healthy":
                assert "healthcheck" in services()[name]


def test_secrets_come_from_the_environment_alone() -> None:
    documented = set(re.findall(r"^(OFP_[A-Z0-9_]+)=$", (INFRA / "env.example").read_text(encoding="utf-8"), re.MULTILINE))
    used: set[str] = set()
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            used |= set(FROM_ENVIRONMENT.findall(value))
            if SECRET.search(name):
                assert FROM_ENVIRONMENT.sub("", value).strip(",") == "", name
                if "build" not in service:  # a server that would start with a password of its own, or with none
                    assert ":?" in value, name
            if name.endswith("_URL"):
                assert re.search(r"://[^/@]+:\$\{[^}]+\}@", value), name
    used |= {secret["environment"] for secret in composed("secrets").values()}
    assert used == documented


def test_processes_are_told_what_they_read() -> None:
    settings = {f"OFP_{name.upper()}" for name in Environment.model_fields}
    others = {"OFP_DAGSTER_POSTGRES_URL", "OFP_DAGSTER_SESSION"}
    for service in services().values():
        if "build" in service:
            told = {name for name in service["environment"] if name.startswith("OFP_")}
            assert {"OFP_DATABASE_URL", "OFP_PROFILE"} <= told <= settings | others


def test_every_port_is_bound_to_the_loopback() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_has_a_version_and_a_digest() -> None:
    pinned = re.compile(r":v?\d+(\.\d+)*(-slim)?@sha256:[0-9a-f]{64}$")
    bases = re.findall(r"^FROM (\S+)", (INFRA / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(bases) == 2
    for image in bases + [service["image"] for service in services().values() if "build" not in service]:
        assert pinned.search(image), image


def test_every_container_is_confined() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "/tmp:mode=1777" in service["tmpfs"], name


def test_every_file_that_is_mounted_exists_and_every_volume_is_declared() -> None:
    declared = set(composed("volumes"))
    used: set[str] = set()
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (INFRA / source).exists(), source
            else:
                used.add(source)
    assert used == declared


def test_the_profile_is_one_and_its_pack_ships() -> None:
    profile = load_profile(INFRA / "profile.yaml")
    pack = shipped_pack(profile.pack)
    key = profile.partition_key.removeprefix("payload.")
    assert all(key in routing.keys.values() for routing in pack.events.values())


def test_the_image_copies_what_exists_and_does_not_run_as_root() -> None:
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line and not line.startswith("#")]
    instructions = [line[0] for line in lines]
    assert set(instructions) <= {"FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "CMD"}
    assert instructions[0] == "FROM"
    assert lines[instructions.index("USER")][1] != "root"
    admitted = set(re.findall(r"^!(.+)$", (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    sources = {source for line in lines if line[0] == "COPY" and not line[1].startswith("--from") for source in line[1:-1]}
    assert sources == admitted
    assert all((ROOT / source).exists() for source in sources)
    assert "--require-hashes" in text
    assert "pip wheel" in text
    assert "--no-build-isolation" in text  # a build environment of pip's own would take what no lock names


def test_expressions_ask_for_metrics_that_exist() -> None:
    suffix = {"counter": "_total", "histogram": "_bucket"}
    families = [family for source in (HttpMetrics(), Counters()) for family in source.registry.collect()]
    existing = {family.name + suffix.get(family.type, "") for family in families}
    asked = {name for expression in expressions() for name in re.findall(r"\bofp_[a-z_]+\b", expression)}
    assert len(asked) >= 11
    assert asked <= existing


def test_expressions_are_balanced() -> None:
    closing = {")": "(", "]": "[", "}": "{"}
    for expression in expressions():
        open_brackets: list[str] = []
        for char in re.sub(r'"[^"]*"', "", expression):
            if char in closing.values():
                open_brackets.append(char)
            elif char in closing:
                assert open_brackets.pop() == closing[char], expression
        assert open_brackets == [], expression


def test_alerts_are_complete_and_point_into_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", runbook, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors, rule["alert"]
        assert f"`{rule['alert']}`" in runbook


def test_prometheus_scrapes_services_that_exist() -> None:
    configuration = yaml("prometheus/prometheus.yaml")
    for name in configuration["rule_files"]:
        assert (INFRA / "prometheus" / name).exists()
    for job in configuration["scrape_configs"]:
        for target in (target for static in job["static_configs"] for target in static["targets"]):
            service, _, port = target.partition(":")
            assert port in services()[service]["command"]


def test_the_dashboard_has_no_overlap_and_one_source() -> None:
    source = yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]["uid"]
    cells: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]} == {source}
        box = panel["gridPos"]
        taken = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & taken
        assert box["x"] + box["w"] <= 24
        cells |= taken


def test_dashboards_are_where_grafana_looks() -> None:
    provider = yaml("grafana/provisioning/dashboards/feature_plane.yaml")["providers"][0]
    mounts = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
