"""What holds for every pod and object of every setup."""

import re

import pytest
from charts import ROOT, SETUPS, config, containers, of_kind, pods, rendered, workloads


@pytest.fixture(params=SETUPS)
def objects(request):
    return rendered(request.param)


def seconds(text):
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def test_nothing_runs_as_root(objects):
    for name, spec in pods(objects):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name


def test_no_root_filesystem_can_be_written_to(objects):
    for name, container in containers(objects):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_no_container_gains_privileges(objects):
    for name, container in containers(objects):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert not container["securityContext"].get("privileged"), name


def test_every_capability_is_dropped(objects):
    for name, container in containers(objects):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name


def test_system_calls_are_filtered(objects):
    for name, spec in pods(objects):
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_no_pod_gets_a_token_or_anything_of_the_host(objects):
    for name, spec in pods(objects):
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name


def test_every_container_has_requests_and_limits(objects):
    for name, container in containers(objects):
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(resources[kind]), name
        for resource, count in resources["limits"].items():
            if "/" in resource:
                assert resources["requests"][resource] == count, name


def test_every_image_has_a_tag_or_digest_that_says_something(objects):
    for name, container in containers(objects):
        assert re.search(r"(:[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]), name
        assert not container["image"].endswith(":latest"), name


def test_every_worker_is_probed(objects):
    for item in workloads(objects):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert paths == ["/startupz", "/readyz", "/livez"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        listen = config(objects, item["metadata"]["name"])["admin"]["listen"]
        assert listen == f"0.0.0.0:{ports[container['startupProbe']['httpGet']['port']]}"


def test_a_rollout_is_not_given_up_while_a_model_may_still_load(objects):
    for item in of_kind(objects, "Deployment"):
        probe = item["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        assert item["spec"]["progressDeadlineSeconds"] > probe["failureThreshold"] * probe["periodSeconds"]


def closing_seconds():
    """What the worker may take beyond its grace: to leave its group, to export what is left, to end."""
    found = [
        re.search(pattern, (ROOT / path).read_text())[1]
        for path, pattern in [
            ("src/app/mod.rs", r"const CLOSING: Duration = Duration::from_secs\((\d+)\)"),
            ("src/telemetry/otlp.rs", r"const LAST_EXPORT: Duration = Duration::from_secs\((\d+)\)"),
            ("src/cli/run.rs", r"shutdown_timeout\(Duration::from_secs\((\d+)\)\)"),
        ]
    ]
    return sum(map(int, found))


def test_a_pod_lives_longer_than_its_worker_needs_at_the_most(objects):
    for item in workloads(objects):
        grace = seconds(config(objects, item["metadata"]["name"])["shutdown"]["grace"])
        assert item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace + 20
        assert grace + closing_seconds() < grace + 20


def test_either_an_autoscaler_or_the_chart_sets_the_number_of_pods(objects):
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")}
    for item in workloads(objects):
        assert ("replicas" in item["spec"]) == (item["metadata"]["name"] not in scaled)


def test_configuration_policies_and_secrets_are_mounted_as_folders(objects):
    for name, container in containers(objects):
        assert not [mount for mount in container["volumeMounts"] if "subPath" in mount], name


def test_only_what_must_be_written_can_be_written(objects):
    writable = {"state", "tmp", "engines", "more"}
    for name, spec in pods(objects):
        for container in spec["containers"]:
            found = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert found <= writable, name


def test_every_mount_has_its_volume_and_every_path_of_the_configuration_its_mount(objects):
    for item in workloads(objects):
        spec = item["spec"]["template"]["spec"]
        claims = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])]
        volumes = {volume["name"] for volume in spec["volumes"]} | set(claims)
        (container,) = spec["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for path in paths(config(objects, item["metadata"]["name"])):
            assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


def paths(value):
    """Every absolute path in it, but those that the image brings."""
    if isinstance(value, dict):
        return [path for item in value.values() for path in paths(item)]
    return [value] if isinstance(value, str) and value.startswith("/") and not value.startswith("/opt/") else []


def test_every_selector_finds_the_pods_of_one_pool_and_no_test_pod(objects):
    labels = {item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"] for item in workloads(objects)}
    tests = {item["metadata"]["name"]: item["metadata"]["labels"] for item in of_kind(objects, "Pod")}
    for item in [*workloads(objects), *of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy")]:
        spec = item["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        selector = selector.get("matchLabels", selector)
        found = [name for name, given in (labels | tests).items() if selector.items() <= given.items()]
        assert found == [item["metadata"]["name"]], item["kind"]


def test_every_configmap_that_a_pod_mounts_is_there_or_named_in_the_values(objects):
    there = {item["metadata"]["name"] for item in of_kind(objects, "ConfigMap")} | {"policies"}
    for name, spec in pods(objects):
        assert {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume} <= there, name


def test_a_pool_loses_one_pod_at_a_time(objects):
    assert len(of_kind(objects, "PodDisruptionBudget")) == len(workloads(objects))
    for item in of_kind(objects, "PodDisruptionBudget"):
        assert item["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in item["spec"]


def test_a_rollout_needs_no_spare_gpu(objects):
    for item in of_kind(objects, "Deployment"):
        spec = item["spec"]["template"]["spec"]
        on_gpu = "resourceClaims" in spec or any("/" in name for name in spec["containers"][0]["resources"]["limits"])
        assert item["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == (0 if on_gpu else 1)


def test_pods_spread_where_they_can_and_start_where_they_cannot(objects):
    for item in workloads(objects):
        constraints = item["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {constraint["whenUnsatisfiable"] for constraint in constraints} == {"ScheduleAnyway"}


def test_keda_cannot_be_misled(objects):
    for item in of_kind(objects, "ScaledObject"):
        given = config(objects, item["metadata"]["name"])["kafka"]
        trigger = item["spec"]["triggers"][0]
        assert trigger["type"] == "kafka"
        metadata = trigger["metadata"]
        assert metadata["topic"] == given.get("topics", {}).get("posts", "posts")
        assert metadata["consumerGroup"] == given.get("group", "moderato")
        assert metadata["offsetResetPolicy"] == "earliest"
        assert int(metadata["lagThreshold"]) > 1
        if given.get("delivery") == "exactly_once":
            assert int(metadata["activationLagThreshold"]) >= item["spec"]["maxReplicaCount"]
        down = item["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 600
        assert [policy["value"] for policy in down["policies"]] == [1]


def test_every_name_fits_a_label(objects):
    for item in objects:
        assert len(item["metadata"]["name"]) <= 63
