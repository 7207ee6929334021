"""What values do, and that values which cannot work are refused with the key to change."""

import hashlib
import json
import subprocess

import pytest
import yaml
from charts import CHART, ROOT, config, containers, job, of_kind, only, refusal, render, workloads

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

KEDA = {"autoscaling": {"keda": {"enabled": True}}, "partitions": 8}
EXACTLY = {"config": {"kafka": {"delivery": "exactly_once"}}}
CLAIM = {"resources": {"requests": {"storage": "1Gi"}}}
SASL = {"config": {"kafka": {"options": {"sasl.mechanism": "PLAIN"}}}}
INIT = {"image": "a@sha256:" + "1" * 64, "fetch": "x", "manifestSha256": "1" * 64}

REFUSED = {
    "both autoscalers": (
        {"partitions": 8, "autoscaling": {"keda": {"enabled": True}, "hpa": {"enabled": True}}},
        "classify.autoscaling: keda and hpa are both on",
    ),
    "an autoscaler without partitions": ({"autoscaling": {"keda": {"enabled": True}}}, "classify.partitions: is required"),
    "more pods than partitions, scaled": (
        {**KEDA, "partitions": 3}, "classify.autoscaling.maxReplicas: 4 pods for 3 partitions",
    ),
    "more pods than partitions, fixed": ({"replicas": 5, "partitions": 4}, "classify.replicas: 5 pods for 4 partitions"),
    "fewest above most": (
        {"partitions": 8, "autoscaling": {"keda": {"enabled": True}, "minReplicas": 5}}, "minReplicas: is greater",
    ),
    "an HPA from zero": (
        {"partitions": 8, "autoscaling": {"hpa": {"enabled": True}, "minReplicas": 0}}, "minReplicas: a Horizontal",
    ),
    "markers that would count as lag": (
        {"partitions": 8, **EXACTLY, "autoscaling": {"keda": {"enabled": True, "activationLagThreshold": 7}}},
        "activationLagThreshold: with exactly_once, commit markers count as lag; at least 8",
    ),
    "KEDA without the brokers' password": ({**KEDA, **SASL}, "keda.secretTargetRef: the brokers ask for SASL"),
    "a Prometheus trigger without Prometheus": (
        {"partitions": 8, "autoscaling": {"keda": {"enabled": True, "prometheus": {"enabled": True}}}}, "serverAddress: is required",
    ),
    "no brokers": ({"config": {"kafka": {"brokers": ""}}}, "classify.config.kafka.brokers: is required"),
    "brokers without a port": ({"config": {"kafka": {"brokers": "kafka"}}}, "/classify/config/kafka/brokers"),
    "no policy": ({"policies": {"use": ""}}, "classify.policies.use: is required"),
    "a policy that is not there": (
        {"policies": {"use": "b.md", "existingConfigMap": ""}}, "classify.policies.files: has no `b.md`",
    ),
    "a device without a GPU": (
        {"config": {"model": {"device": "cuda"}}}, "classify.gpu.resource: model.device is cuda, so name the GPU",
    ),
    "a GPU without a device": ({"gpu": {"resource": "nvidia.com/gpu"}}, "a GPU would be held and idle"),
    "an unknown device": ({"config": {"model": {"device": "gpu"}}}, "/classify/config/model/device"),
    "a fixed membership of pods that change names": ({"staticMembership": True}, "staticMembership: needs kind: StatefulSet"),
    "a claim for each pod of a Deployment": ({"engineCache": {"claimSpec": CLAIM}}, "claimSpec: needs kind: StatefulSet"),
    "no model": ({"model": {"path": ""}}, "classify.model.path: name the model folder"),
    "a claim without a name": ({"model": {"source": "claim"}}, "model.claim.name: is required"),
    "a download without a digest": (
        {"model": {"source": "init", "init": {**INIT, "manifestSha256": ""}}}, "manifestSha256 are required",
    ),
    "a digest that is none": (
        {"model": {"source": "init", "init": {**INIT, "manifestSha256": "abc"}}}, "/classify/model/init/manifestSha256",
    ),
    "latest that fetches the model": ({"model": {"source": "init", "init": {**INIT, "image": "a:latest"}}}, "model.init.image"),
    "a model image by tag": (
        {"model": {"source": "image", "image": {"reference": "models:1"}}}, "model.image.reference: must end in @sha256:",
    ),
    "latest": ({"image": {"tag": "latest"}}, "classify.image.tag: `latest` says nothing"),
    "a password in the configuration": (
        {"config": {"kafka": {"password": "x"}}}, "classify.config.kafka: a password would lie open in a ConfigMap",
    ),
    "a registry's password in the configuration": (
        {"config": {"kafka": {"schema_registry": {"password": "x"}}}}, "classify.config.kafka.schema_registry: a password would lie",
    ),
    "a seal in the configuration": (
        {"config": {"cache": {"redis": {"hmac_key": "x"}}}}, "classify.config.cache.redis: a secret would lie open",
    ),
    "a model path beside the chart's": ({"config": {"model": {"path": "/x"}}}, "classify.config.model.path: the chart sets it"),
    "a port beside the chart's": ({"config": {"admin": {"listen": "x"}}}, "additional properties 'admin' not allowed"),
    "a grace that is none": ({"config": {"shutdown": {"grace": "30"}}}, "/classify/config/shutdown/grace"),
    "off without quotes": ({"config": {"cache": {"kind": False}}}, "/classify/config/cache/kind"),
    "an unknown kind": ({"kind": "DaemonSet"}, "/classify/kind"),
    "a misspelt value": ({"replica": 2}, "additional properties 'replica' not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_its_key(case):
    values, message = REFUSED[case]
    assert message in refusal("minimal", {"classify": values})


def test_keda_without_keda_is_refused():
    assert "the cluster has no keda.sh/v1alpha1" in refusal("minimal", {"worker": KEDA}, kinds=[])


def test_a_misspelt_section_is_refused():
    assert "additional properties 'metric' not allowed" in refusal("minimal", {"metric": {}})


def test_two_pools_of_one_group_are_refused():
    values = {"draftNote": {"config": {"kafka": {"group": "moderato"}}}}
    assert "draftNote.config.kafka.group: must differ" in refusal("classify-and-draft", values)


def test_a_pool_that_is_off_is_not_asked_for_what_it_lacks():
    assert len(workloads(render("minimal", {"worker": {"model": {"path": ""}}, "classify": {"model": {"path": "/opt/m"}}}))) == 1


def test_every_value_has_its_place_in_the_schema_and_the_other_way_round():
    def compare(values, schema, path):
        if "properties" not in schema or schema.get("additionalProperties") is not False:
            return
        extra = {"enabled"} if path == "worker" else set()
        if not path.endswith("worker.config"):
            assert set(values) == set(schema["properties"]) - extra - ({"global"} if not path else set()), path
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][key], f"{path}.{key}".strip("."))

    worker = SCHEMA["definitions"]["worker"]
    compare({**VALUES, "classify": {}, "draftNote": {}}, {**SCHEMA, "properties": {**SCHEMA["properties"], "worker": worker}}, "")


def test_the_schema_has_the_sections_of_the_worker():
    """All but those that the chart sets."""
    sections = set(json.loads((ROOT / "schemas" / "config.v1.json").read_text())["properties"])
    own = {"task", "policy", "state_dir", "admin"}
    given = set(SCHEMA["definitions"]["worker"]["properties"]["config"]["properties"])
    assert given == sections - own


@pytest.mark.parametrize(
    ("grace", "seconds"), [("20s", 40), ("2m", 140), ("1h", 3620), ("1h30m", 5420), ("1m500ms", 81), ("30000ms", 50)]
)
def test_a_pod_lives_twenty_seconds_longer_than_its_grace(grace, seconds):
    (item,) = workloads(render("minimal", {"worker": {"config": {"shutdown": {"grace": grace}}}}))
    assert item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(
    ("values", "tries"),
    [
        ({}, 30),
        ({"startup": {"timeout": "95s"}}, 10),
        ({"config": {"model": {"device": "cuda"}}, "gpu": {"resource": "nvidia.com/gpu"}}, 30),
        ({"config": {"model": {"device": "tensorrt"}}, "gpu": {"resource": "nvidia.com/gpu"}}, 180),
    ],
)
def test_the_startup_probe_waits_for_the_model_and_for_engines(values, tries):
    (item,) = workloads(render("minimal", {"worker": values}))
    probe = item["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (tries, 10)


def test_what_a_pool_says_wins_over_what_holds_for_both_false_and_zero_included():
    both = {
        "worker": {"replicas": 3, "podDisruptionBudget": {"enabled": True}, "config": {"limits": {"max_in_flight": 9}}},
        "classify": {"replicas": 0, "podDisruptionBudget": {"enabled": False}, "config": {"limits": {"max_batch_posts": 2}}},
    }
    objects = render("minimal", both)
    assert workloads(objects)[0]["spec"]["replicas"] == 0
    assert not of_kind(objects, "PodDisruptionBudget")
    assert config(objects)["limits"] == {"max_in_flight": 9, "max_batch_posts": 2}


def test_large_numbers_stay_whole():
    objects = render("minimal", {"worker": {"config": {"limits": {"max_post_bytes": 104857600}}}})
    (text,) = [item["data"]["moderato.yaml"] for item in of_kind(objects, "ConfigMap")]
    assert "max_post_bytes: 104857600\n" in text


def test_what_one_pool_flags_the_other_reads():
    objects = render("classify-and-draft", {"draftNote": {"config": {"kafka": {"topics": {"posts": "flags"}}}}})
    assert config(objects, "-classify")["kafka"]["topics"]["flagged"] == "flags"
    assert config(objects, "-draft-note")["kafka"]["topics"]["posts"] == "flags"
    assert config(objects, "-draft-note")["task"] == "draft_note"


def test_a_flagged_topic_that_was_given_stays():
    objects = render("classify-and-draft", {"classify": {"config": {"kafka": {"topics": {"flagged": "mine"}}}}})
    assert config(objects, "-classify")["kafka"]["topics"]["flagged"] == "mine"


def test_keda_wakes_a_pool_by_more_than_the_markers_of_its_transactions():
    values = {**KEDA, **EXACTLY, "autoscaling": {"keda": {"enabled": True}, "minReplicas": 0}}
    trigger = only(render("minimal", {"worker": values}), "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert trigger["activationLagThreshold"] == "8"
    trigger = only(render("minimal", {"worker": KEDA}), "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert trigger["activationLagThreshold"] == "0"


def test_a_drafting_pool_reads_what_the_other_wrote_in_transactions():
    objects = render("minimal", {"worker": KEDA, "classify": EXACTLY, "draftNote": {"enabled": True}})
    trigger = only(objects, "ScaledObject", "-draft-note")["spec"]["triggers"][0]["metadata"]
    assert trigger["activationLagThreshold"] == "8"


@pytest.mark.parametrize(
    ("mechanism", "sasl"), [("PLAIN", "plaintext"), ("SCRAM-SHA-256", "scram_sha256"), ("SCRAM-SHA-512", "scram_sha512")]
)
def test_keda_logs_in_as_the_worker_does(mechanism, sasl):
    options = {"sasl.mechanism": mechanism, "security.protocol": "SASL_SSL"}
    objects = render("external-secrets", {"worker": {"config": {"kafka": {"options": options}}}})
    trigger = only(objects, "ScaledObject")["spec"]["triggers"][0]
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["tls"]) == (sasl, "enable")
    authentication = only(objects, "TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert {ref["parameter"] for ref in authentication["spec"]["secretTargetRef"]} == {"username", "password", "ca"}


def test_the_time_to_drain_scales_the_pool_of_its_own_pods():
    trigger = only(render("everything-on"), "ScaledObject", "-draft-note")["spec"]["triggers"][1]
    assert (trigger["type"], trigger["metricType"], trigger["metadata"]["threshold"]) == ("prometheus", "Value", "300")
    query = 'max(moderato_time_to_drain_seconds{namespace="moderation", pod=~"rel-moderato-draft-note-.+"})'
    assert trigger["metadata"]["query"] == query


def test_an_init_container_lets_no_other_model_pass(tmp_path):
    """The rendered script itself, run by a shell: with the manifest that was named, and with another."""
    container = next(container for _, container in containers(render("tensorrt")) if container["name"] == "model")
    script = container["args"][0].replace('fetch s3://models/llama "$MODEL_DIR"', 'printf "$TEXT" >"$MODEL_DIR/manifest.json"')
    assert "$TEXT" in script

    def starts(text):
        named = hashlib.sha256(b"hello").hexdigest()
        env = {"PATH": "/usr/bin:/bin", "MODEL_DIR": str(tmp_path), "MANIFEST_SHA256": named, "TEXT": text}
        return subprocess.run([*container["command"], script], env=env, capture_output=True, check=False).returncode == 0

    assert starts("hello")
    assert not starts("hello!")


def test_static_members_are_named_by_their_pods():
    (item,) = workloads(render("tensorrt"))
    env = {entry["name"]: entry.get("value") for entry in item["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MODERATO__KAFKA__OPTIONS__GROUP_INSTANCE_ID"] == "$(POD_NAME)"
    assert item["spec"]["serviceName"] in {
        service["metadata"]["name"] for service in of_kind(render("tensorrt", {"metrics": {"service": {"enabled": False}}}), "Service")
    }


def test_helm_test_checks_with_the_pool_s_own_configuration():
    pod = only(render("cpu"), "Pod")
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [*container["command"], *container["args"]] == [
        "moderato", "check", "-c", "/etc/moderato/config/moderato.yaml", "--wait=300s"
    ]
    assert {"name": "config", "configMap": {"name": "rel-moderato-classify"}} in pod["spec"]["volumes"]
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)


def test_the_network_is_open_to_what_the_worker_needs_and_nothing_else():
    spec = only(render("external-secrets"), "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {53, 9093, 8081, 6380, 4318}
    (ingress,) = spec["ingress"]
    assert ingress["ports"] == [{"port": "admin", "protocol": "TCP"}]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_no_secret_is_made_and_none_lies_in_a_configmap():
    objects = render("external-secrets")
    assert not of_kind(objects, "Secret")
    text = json.dumps(of_kind(objects, "ConfigMap"))
    assert "password_file: " in text
    assert "password: " not in text
    assert "hmac_key: " not in text


def test_long_names_fit():
    for item in render("classify-and-draft", {"fullnameOverride": "a" * 63}):
        assert len(item["metadata"]["name"]) <= 63


def test_a_replay_judges_with_the_pool_s_configuration_under_its_job_s_name():
    item = only(render("classify-and-draft"), "Job")
    (container,) = job(item)["template"]["spec"]["containers"]
    assert item["metadata"]["name"] == "rel-moderato-classify-replay-october"
    assert [*container["command"], *container["args"]] == [
        "moderato", "replay", "-c", "/etc/moderato/config/moderato.yaml", "--id=$(REPLAY_ID)", "--progress=json",
        "--from=2026-10-01T00:00:00Z", "--to=2026-11-01T00:00:00Z",
    ]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["REPLAY_ID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)


def test_a_replay_that_cannot_end_otherwise_is_not_tried_again():
    item = only(render("everything-on"), "CronJob")
    (ended, drained) = job(item)["podFailurePolicy"]["rules"]
    assert (ended["action"], ended["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert drained["action"] == "Ignore"
    assert job(item)["template"]["spec"]["restartPolicy"] == "Never"
    assert item["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "october"}, "classify.config.kafka.topics.audit: is required for replay"),
        ({"name": "October!"}, "/replay/name"),
        ({"name": "october", "parallelism": 0}, "/replay/parallelism"),
    ],
)
def test_a_replay_that_cannot_work_is_refused_with_its_key(values, message):
    assert message in refusal("minimal", {"replay": {"enabled": True, **values}})


def test_a_job_without_a_name_is_refused():
    values = {"replay": {"enabled": True}, "classify": {"config": {"kafka": {"topics": {"audit": "audit"}}}}}
    assert "replay.name: is required without a schedule" in refusal("minimal", values)
