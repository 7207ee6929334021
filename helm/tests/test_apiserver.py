"""A kube-apiserver takes every render as it is, under the strictest pod security, and a second time changes nothing."""

import copy
import itertools
import os
import re
import subprocess

import pytest
from charts import CHART, CRDS, HELM, MINORS, SETUPS, job, of_kind, render, run
from cluster import PROGRAM, Cluster, Refused

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is missing: make helm-test builds it")

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
# What the values of the setups name and a cluster's administrator makes.
OTHERS = [
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "moderation"}, "value": 1000},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
]
ACCOUNTS = ["default", "moderato"]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        for crd in CRDS:
            cluster.define(crd)
        for item in OTHERS:
            cluster.apply(item)
        yield cluster


@pytest.fixture
def namespace(cluster):
    """One of the test's own, where only pods of the level `restricted` may run."""
    name = f"test-{next(NUMBERS)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    for account in ACCOUNTS:
        cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, name)
    return name


def objects(setup, values=None, **given):
    return render(setup, values, minor=MINORS[-1], **given)


def made_pods(item):
    """The pods that controllers make of an object."""
    if item["kind"] in ("Job", "CronJob"):
        template = job(item)["template"]
    elif item["kind"] in ("Deployment", "StatefulSet"):
        template = item["spec"]["template"]
    else:
        return
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    pod["metadata"]["name"] = f"{item['metadata']['name']}-0"
    for claim in item["spec"].get("volumeClaimTemplates", []):
        name = claim["metadata"]["name"]
        pod["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}})
    yield pod


@pytest.mark.parametrize("setup", SETUPS)
def test_every_object_is_taken_and_the_same_again_changes_nothing(cluster, namespace, setup):
    def versions():
        return {
            (item["kind"], item["metadata"]["name"]): cluster.apply(item, namespace)["metadata"]["resourceVersion"]
            for item in objects(setup)
        }

    assert versions() == versions()


@pytest.fixture(scope="module")
def next_version(tmp_path_factory):
    """The chart as it will be released next, for a worker of its own version."""
    folder = tmp_path_factory.mktemp("chart")
    done = run(HELM, "package", CHART, "-d", folder, "--version", "99.0.0", "--app-version", "99.0.0")
    assert done.returncode == 0, done.stderr
    return folder / "moderato-99.0.0.tgz"


@pytest.mark.parametrize("setup", SETUPS)
def test_the_next_version_is_taken_over_this_one(cluster, namespace, next_version, setup):
    for item in objects(setup):
        cluster.apply(item, namespace)
    # Jobs do not change: another wants another name, as the values say. Helm deletes the pods of its tests itself.
    later = objects(setup, {"replay": {"name": "november"}}, chart=next_version)
    assert later != objects(setup, {"replay": {"name": "november"}})
    for item in later:
        if item["kind"] != "Pod":
            cluster.apply(item, namespace)


@pytest.mark.parametrize("setup", SETUPS)
def test_every_pod_may_run_where_only_restricted_ones_may(cluster, namespace, setup):
    pods = [pod for item in objects(setup) for pod in made_pods(item)]
    assert pods
    for pod in pods:
        cluster.admit(pod, namespace)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ScaledObject", "ServiceMonitor", "PrometheusRule"])
def test_a_field_that_is_not_there_is_refused(cluster, namespace, kind):
    item = of_kind(objects("everything-on"), kind)[0]
    item["spec"]["misspelt"] = 1
    with pytest.raises(Refused, match=r"misspelt: field not declared in schema|unknown field .*misspelt"):
        cluster.apply(item, namespace)


def test_a_pod_that_may_run_as_root_is_refused(cluster, namespace):
    (pod,) = [pod for item in objects("minimal") for pod in made_pods(item)]
    cluster.admit(pod, namespace)
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(Refused, match='violates PodSecurity "restricted:latest": .*runAsNonRoot'):
        cluster.admit(pod, namespace)


def test_a_workload_whose_pods_may_run_as_root_is_warned_of(cluster, namespace):
    (item,) = of_kind(objects("minimal"), "Deployment")
    item["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(Refused, match="would violate PodSecurity .*runAsNonRoot"):
        cluster.apply(item, namespace)


def test_the_command_of_the_readme_installs_and_upgrades_rollbacks_and_uninstalls_leave_what_they_say(cluster, namespace):
    asked = re.search(r"^(helm install moderato .*?)^helm test", (CHART / "README.md").read_text(), re.M | re.S)[1]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig()), "HELM_NAMESPACE": namespace}

    def helm(line):
        command = re.sub("^helm", str(HELM), line.replace("REGISTRY", "registry.example"))
        return subprocess.run(command, shell=True, cwd=CHART.parent.parent, env=environment, capture_output=True, text=True)

    def replicas():
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        return [item["spec"]["replicas"] for item in cluster.taken("GET", path)["items"]]

    installed = helm(asked)
    assert installed.returncode == 0, installed.stderr
    assert replicas() == [1]
    for line, left in [
        ("helm upgrade moderato helm/moderato --reuse-values --set worker.replicas=2", [2]),
        ("helm rollback moderato 1", [1]),
        ("helm uninstall moderato", []),
    ]:
        done = helm(line)
        assert done.returncode == 0, (line, done.stderr)
        assert replicas() == left, line
