"""docker-compose.yaml fits the Compose Specification, pins what it runs, and mounts what is there."""

import json
import re
import subprocess
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONFIGS = ROOT / "docker/compose"
# Made by `make model`.
MADE = ["./.cache/models/misinformation"]


def mounts(service: dict) -> list[tuple[str, str, str]]:
    """Source, target and mode of what a service mounts from this repository."""
    parts = [(*mount.split(":"), "rw")[:3] for mount in service.get("volumes", [])]
    return [mount for mount in parts if mount[0].startswith(".")]


def test_it_fits_the_compose_specification():
    schemas = resources.files("check_jsonschema") / "builtin_schemas/vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


@pytest.mark.parametrize("service", [name for name in SERVICES if "build" not in SERVICES[name]])
def test_every_image_is_pinned_by_version_and_digest(service):
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", SERVICES[service]["image"])


def test_the_worker_is_built_from_a_target_of_the_dockerfile():
    build = SERVICES["worker"]["build"]
    assert re.search(rf"^FROM \S+ AS {build['target']}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert SERVICES["worker"]["image"] == f"moderato:{version}"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_in_the_repository_and_read_only(service):
    for source, _, mode in mounts(SERVICES[service]):
        tracked = subprocess.run(["git", "ls-files", "--", source], cwd=ROOT, capture_output=True, text=True, check=True)
        assert source in MADE or tracked.stdout, f"git has no {source}"
        assert mode == "ro"


@pytest.mark.parametrize("service", SERVICES)
def test_no_port_is_open_to_other_machines(service):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_the_worker_has_no_more_rights_than_it_needs():
    worker = SERVICES["worker"]
    assert worker["read_only"] and worker["cap_drop"] == ["ALL"] and "no-new-privileges:true" in worker["security_opt"]


def test_the_worker_has_time_to_drain():
    raw = (ROOT / "src/config/raw.rs").read_text()
    grace = int(re.search(r'grace: "(\d+)s"', raw)[1])
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) == grace + 10


def test_the_workers_configuration_fits_its_schema():
    schema = json.loads((ROOT / "schemas/config.v1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load((CONFIGS / "moderato.yaml").read_text()))


def test_the_worker_finds_what_its_configuration_names():
    config = yaml.safe_load((CONFIGS / "moderato.yaml").read_text())
    targets = {target: source for source, target, _ in mounts(SERVICES["worker"])}
    assert config["model"]["path"] in targets
    folder, name = config["policy"].rsplit("/", 1)
    assert (ROOT / targets[folder] / name).is_file()
    assert f"{config['state_dir']}" in [mount.split(":")[1] for mount in SERVICES["worker"]["volumes"]]
    topics = (CONFIGS / "topics").read_text()
    for topic in config["kafka"]["topics"].values():
        assert re.search(rf"^make {re.escape(topic)}( |$)", topics, re.MULTILINE)
    for address in [config["kafka"]["brokers"], config["cache"]["redis"]["url"].split("/")[2]]:
        assert address.split(":")[0] in SERVICES


def test_prometheus_scrapes_the_workers_admin_port():
    port = yaml.safe_load((CONFIGS / "moderato.yaml").read_text())["admin"]["listen"].split(":")[1]
    prometheus = yaml.safe_load((CONFIGS / "prometheus.yaml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == [f"worker:{port}"]


def test_prometheus_and_grafana_read_the_charts_alerts_and_dashboard():
    sources = {source for name in ["prometheus", "grafana"] for source, _, _ in mounts(SERVICES[name])}
    assert {"./helm/moderato/alerts", "./helm/moderato/dashboards"} <= sources
    assert list((ROOT / "helm/moderato/alerts").glob("*.yaml")) and list((ROOT / "helm/moderato/dashboards").glob("*.json"))
