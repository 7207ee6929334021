"""Alerts and dashboard: only metrics that the worker has, valid PromQL, and every alert fires when it should and only then."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from charts import CHART, PROMTOOL, ROOT, of_kind, only, render, rendered, run

sys.path.insert(0, str(ROOT / "docs" / "tools"))
from metrics import metrics  # noqa: E402

HERE = Path(__file__).parent
METRICS = metrics()
RULES = CHART / "alerts" / "moderato.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
UNIT_TESTS = (HERE / "alerts_test.yaml").read_text()
DASHBOARD = yaml.safe_load((CHART / "dashboards" / "moderato.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [(alert["alert"], alert["expr"]) for alert in ALERTS] + QUERIES
SCRAPED = {"namespace", "job", "instance", "pod"}
# Everything of PromQL that looks like a name and is used here.
WORDS = set("and or unless by ignoring on group_left offset sum min max count rate increase delta histogram_quantile vector".split())


def series():
    """Name of a series at /metrics to the labels it may have."""
    out = {}
    for metric in METRICS:
        name = metric.at_metrics
        if metric.kind == "Histogram":
            out |= {f"{name}_bucket": {*metric.labels, "le"}, f"{name}_sum": metric.labels, f"{name}_count": metric.labels}
        else:
            out[name] = metric.labels
    return out


SERIES = series()


def parts(expression):
    """Names of metrics, and labels, of an expression."""
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
    for group in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",") if label.strip()}
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|ignoring|without)\s*\([^)]*\)", " ", bare)
    names = {name for name in re.findall(r"[A-Za-z_:][\w:]*", bare)} - WORDS
    return {name for name in names if not re.fullmatch(r"[smhdwy]", name)}, labels


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_only_metrics_and_labels_of_the_worker_are_asked_for(title, expression):
    names, labels = parts(expression)
    assert names, title
    assert names <= set(SERIES)
    assert labels - SCRAPED <= set().union(*(SERIES[name] for name in names))


@pytest.mark.parametrize("expression", ["rate(moderato_verdict_total[5m])", "sum by (labels) (moderato_verdicts_total)", "up"])
def test_a_name_or_label_that_the_worker_lacks_is_found(expression):
    names, labels = parts(expression)
    assert not (names <= set(SERIES) and labels <= SCRAPED.union(*(SERIES.get(name, set()) for name in names)))


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_rates_are_of_counters_and_of_counters_only(title, expression):
    counters = {name for name in SERIES if name.endswith(("_total", "_bucket", "_sum", "_count"))}
    rated = set(re.findall(r"\b(?:rate|increase)\s*\((\w+)", expression))
    assert rated <= counters, title
    assert parts(expression)[0] & counters <= rated, title


@pytest.mark.parametrize("name", sorted(metric.at_metrics for metric in METRICS))
def test_every_metric_is_on_the_dashboard(name):
    assert any(metric.startswith(name) for _, query in QUERIES for metric in parts(query)[0])


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")} for number, (_, query) in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = run(PROMTOOL, "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUERIES)} rules found" in done.stdout


def test_prometheus_takes_the_alerts():
    done = run(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def unit_tests(folder, rules):
    """promtool's verdict on the unit tests, with these rules."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "moderato", "rules": rules}]}))
    (folder / "test.yaml").write_text(UNIT_TESTS.replace("RULES", str(folder / "rules.yaml")))
    return run(PROMTOOL, "test", "rules", folder / "test.yaml")


def test_every_alert_fires_on_what_it_is_for_and_not_on_what_is_alike(tmp_path):
    done = unit_tests(tmp_path, ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["vector(0) > 1", "vector(1)"], ids=["never fires", "always fires"])
@pytest.mark.parametrize("name", [alert["alert"] for alert in ALERTS])
def test_an_alert_that_never_or_always_fires_is_found(tmp_path, name, broken):
    rules = [{**alert, "expr": broken} if alert["alert"] == name else alert for alert in ALERTS]
    done = unit_tests(tmp_path, rules)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_what_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    assert named <= parts(alert["expr"])[1]


def test_every_alert_has_its_section_in_the_runbook():
    sections = set(re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    assert {alert["alert"] for alert in ALERTS} <= sections


def test_the_runbook_has_a_place_of_the_operator_s_choice_and_alerts_can_be_left_out():
    (rule,) = of_kind(rendered("everything-on"), "PrometheusRule")
    rules = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == {alert["alert"] for alert in ALERTS} - {"ModeratoCacheBreakerOpen"}
    for given in rules:
        assert given["annotations"]["runbook_url"] == f"https://example.com/moderato/runbook.md#{given['alert'].lower()}"


def test_the_cluster_gets_the_very_rules_that_were_tested():
    rule = only(render("minimal", {"metrics": {"rules": {"enabled": True}}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_the_cluster_gets_the_very_dashboard_that_was_tested():
    item = only(rendered("everything-on"), "ConfigMap", "-dashboard")
    assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = item["data"].values()
    assert yaml.safe_load(text) == DASHBOARD
    assert len(text) < 900_000  # a ConfigMap holds 1 MiB


def test_the_dashboard_is_one_that_grafana_can_lay_out():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_queries_a_unit_and_a_sentence(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)
    for target in panel["targets"]:
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= parts(target["expr"])[1]
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_variable_that_a_query_uses_is_there():
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    used = {name for _, query in QUERIES for name in re.findall(r"\$\{?(\w+)", query)}
    assert used <= variables
