"""What is rendered is what Kubernetes, KEDA, the Prometheus operator and the worker understand."""

import copy
import functools
import json
import os
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import CHART, CRDS, HELM, MINORS, ROOT, SETUPS, config, of_kind, only, render, rendered, run, workloads
from yamllint import linter
from yamllint.config import YamlLintConfig

HERE = Path(__file__).parent
CONFIG_SCHEMA = json.loads((ROOT / "schemas" / "config.v1.json").read_text())
LINT = YamlLintConfig("""
extends: default
rules:
  line-length: {max: 130}
  document-start: disable
  braces: {max-spaces-inside: 0}
  truthy: {check-keys: false}
  comments-indentation: disable
""")


# It reads megabytes of definitions for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def closed(node):
    """A definition's schema as JSON Schema: what a cluster would prune in silence is an error."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    out = {key: closed(value) for key, value in node.items() if not key.startswith("x-kubernetes-")}
    if "properties" in node:
        out["properties"] = {name: closed(schema) for name, schema in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    return out


def schemas():
    """(kind, apiVersion) to the schema of everything that is not Kubernetes' own."""
    for crd in CRDS:
        for version in crd["spec"]["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            yield (crd["spec"]["names"]["kind"], f"{crd['spec']['group']}/{version['name']}"), schema


SCHEMAS = dict(schemas())


def valid(item, minor):
    """Raises where the object would be refused, or a field of it pruned."""
    if schema := SCHEMAS.get((item["kind"], item["apiVersion"])):
        jsonschema.Draft7Validator(schema).validate(item)
    else:
        kubernetes_validate.validate(item, minor, strict=True)


@pytest.mark.parametrize("setup", SETUPS)
def test_helm_lints_every_setup(setup):
    done = run(HELM, "lint", "--strict", CHART, "-f", SETUPS[setup])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("setup", SETUPS)
def test_every_object_is_one_that_the_cluster_accepts(setup, minor):
    for item in render(setup, minor=minor):
        valid(item, minor)


def test_a_podmonitor_is_one_that_the_operator_accepts():
    monitor = only(render("minimal", {"metrics": {"monitor": {"kind": "PodMonitor"}}}), "PodMonitor")
    valid(monitor, MINORS[0])


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "ScaledObject", "ServiceMonitor", "PrometheusRule"])
def test_a_field_that_is_not_there_is_found(kind):
    item = copy.deepcopy(of_kind(rendered("everything-on"), kind)[0])
    valid(item, MINORS[0])
    item["spec"]["misspelt"] = 1
    with pytest.raises(jsonschema.ValidationError):
        valid(item, MINORS[0])


@pytest.mark.parametrize("setup", SETUPS)
def test_the_worker_knows_every_key_of_its_configuration(setup):
    objects = rendered(setup)
    for item in workloads(objects):
        jsonschema.Draft202012Validator(CONFIG_SCHEMA).validate(config(objects, item["metadata"]["name"]))


@pytest.mark.parametrize("setup", SETUPS)
def test_a_render_changes_only_on_purpose(setup):
    """`MODERATO_GOLDEN=write` accepts the renders as they are; read the difference."""
    golden = HERE / "golden" / f"{setup}.yaml"
    objects = copy.deepcopy(rendered(setup))
    for item in of_kind(objects, "ConfigMap"):
        # Tested apart, and long.
        item["data"] = {key: "..." if key.endswith(".json") else value for key, value in (item.get("data") or {}).items()}
    for item in of_kind(objects, "PrometheusRule"):
        item["spec"]["groups"] = [rule["alert"] for group in item["spec"]["groups"] for rule in group["rules"]]
    text = yaml.safe_dump_all(objects, width=130)
    if os.environ.get("MODERATO_GOLDEN") == "write":
        golden.write_text(text)
    assert golden.read_text() == text


@pytest.mark.parametrize("path", [CHART / "values.yaml", *SETUPS.values(), CHART / "alerts" / "moderato.yaml"], ids=lambda p: p.name)
def test_yaml_is_clean(path):
    assert [str(problem) for problem in linter.run(path.read_text(), LINT)] == []


def test_what_the_cluster_does_not_know_is_left_out_and_told():
    on = {"metrics": {"monitor": {"kind": "ServiceMonitor"}, "rules": {"enabled": True}}}
    kinds = {item["kind"] for item in render("minimal", on, kinds=[])}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    assert {"ServiceMonitor", "PrometheusRule"} <= {item["kind"] for item in render("minimal", on)}
    notes = install_notes("minimal", "metrics.monitor.kind=ServiceMonitor", "metrics.rules.enabled=true")
    assert "NOT MADE: the ServiceMonitor" in notes
    assert "NOT MADE: the PrometheusRule" in notes


def test_the_notes_tell_what_each_pool_reads_and_how_to_look_at_it():
    notes = install_notes("classify-and-draft")
    assert "rel-moderato-classify reads `posts` on kafka:9092 as group `moderato`" in notes
    assert "rel-moderato-draft-note reads `posts.flagged` on kafka:9092 as group `moderato-notes`" in notes
    assert "rollout status deployment/rel-moderato-classify" in notes
    assert "helm test rel" in notes
    assert "NOT MADE" not in notes


def install_notes(setup, *values):
    """What `helm install` would print, without a cluster: one that knows no kinds but Kubernetes' own."""
    given = [arg for value in values for arg in ("--set", value)]
    done = run(HELM, "install", "rel", CHART, "--dry-run=client", "-f", SETUPS[setup], *given)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def test_a_changed_configuration_restarts_pods_and_a_changed_policy_does_not():
    def pod_template(values):
        return workloads(render("cpu", values))[0]["spec"]["template"]

    before = pod_template({})
    policy = {"worker": {"policies": {"files": {"policy.md": "another"}}}}
    assert pod_template(policy) == before
    changed = pod_template({"worker": {"config": {"limits": {"max_in_flight": 8}}}})
    assert changed["metadata"]["annotations"]["checksum/config"] != before["metadata"]["annotations"]["checksum/config"]


def test_switched_off_there_is_nothing_of_a_pool():
    off = {"classify": {"enabled": False}, "replay": {"enabled": False}}
    assert {item["kind"] for item in render("classify-and-draft", {**off, "draftNote": {"enabled": False}})} == set()
    names = [item["metadata"]["name"] for item in render("classify-and-draft", off)]
    assert names and all("draft-note" in name for name in names)


def test_extra_objects_are_rendered_as_templates():
    names = {item["metadata"]["name"] for item in rendered("everything-on")}
    assert {"rel-more", "rel-text"} <= names
