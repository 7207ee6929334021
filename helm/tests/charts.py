"""Renders the chart with the real helm."""

import functools
import json
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "moderato"
TOOLS = ROOT / ".cache" / "tools"
HELM = Path(os.environ.get("MODERATO_TEST_HELM", TOOLS / "helm-4.1.4" / "helm"))
PROMTOOL = Path(os.environ.get("MODERATO_TEST_PROMTOOL", TOOLS / "promtool" / "promtool"))

SETUPS = {path.stem: path for path in sorted((CHART / "ci").glob("*.yaml"))}
MINORS = ["1.31", "1.34", "1.37"]
# Definitions of KEDA's and the Prometheus operator's kinds: crds/make.
CRDS = [json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "crds").glob("*.json"))]
KINDS = [
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
]


def run(tool, *args, stdin=None):
    """What the tool did; that it is missing is an error, not a reason to skip."""
    assert Path(tool).exists(), f"{tool} is missing: .ci/helm and .ci/promtool fetch the tools"
    return subprocess.run([tool, *map(str, args)], input=stdin, capture_output=True, text=True, check=False)


def template(setup, *args, values=None, kinds=KINDS, minor="1.34", chart=CHART):
    """`helm template` of a setup of `ci/`, with more values over it."""
    known = [arg for kind in kinds for arg in ("--api-versions", kind)]
    over = ["-f", "-"] if values else []
    return run(
        HELM, "template", "rel", chart, "--namespace", "moderation", "--kube-version", minor, "-f", SETUPS[setup],
        *over, *known, *args, stdin=json.dumps(values) if values else None,
    )


def render(setup, values=None, **given):
    """The objects of a setup."""
    done = template(setup, values=values, **given)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@functools.cache
def rendered(setup):
    """The objects of a setup as it stands, to be read only."""
    return render(setup)


def refusal(setup, values, kinds=KINDS):
    """Why helm renders nothing."""
    done = template(setup, values=values, kinds=kinds)
    assert done.returncode != 0, "rendered, although it should not have been"
    return done.stderr


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def only(objects, kind, suffix=""):
    """The one object of a kind whose name has the suffix."""
    found = [item for item in of_kind(objects, kind) if item["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [item["metadata"]["name"] for item in found]
    return found[0]


def workloads(objects):
    return of_kind(objects, "Deployment", "StatefulSet")


def pods(objects):
    """(name, pod spec) of everything that runs, replays and the pods of `helm test` included."""
    for item in workloads(objects):
        yield item["metadata"]["name"], item["spec"]["template"]["spec"]
    for item in of_kind(objects, "Job", "CronJob"):
        yield item["metadata"]["name"], job(item)["template"]["spec"]
    for item in of_kind(objects, "Pod"):
        yield item["metadata"]["name"], item["spec"]


def job(item):
    """The spec of a Job, or of those that a CronJob makes."""
    return item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"]


def containers(objects):
    """(name, container) of everything that runs."""
    for name, spec in pods(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield f"{name}/{container['name']}", container


def config(objects, suffix=""):
    """The worker's configuration, as the pod finds it."""
    found = [
        item["data"]["moderato.yaml"]
        for item in of_kind(objects, "ConfigMap")
        if "moderato.yaml" in (item.get("data") or {}) and item["metadata"]["name"].endswith(suffix)
    ]
    assert len(found) == 1
    return yaml.safe_load(found[0])
