"""Writes the Grafana dashboard from the table below: dashboard.py, or dashboard.py --check to see that it is written.

A panel is: title, what it tells, unit, kind, width of 24, and its queries as (PromQL, legend). `POOL` stands for the labels
that the variables choose, `RATE` for Grafana's rate interval.
"""

import json
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "moderato" / "dashboards" / "moderato.json"
POOL = 'namespace=~"$namespace", job=~"$job"'
RATE = "[$__rate_interval]"


def per_second(metric, by="", where=""):
    by = f" by ({by})" if by else ""
    return f"sum{by} (rate({metric}{{{POOL}{where}}}{RATE}))"


def gauge(metric, how="sum", by=""):
    by = f" by ({by})" if by else ""
    return f"{how}{by} ({metric}{{{POOL}}})"


def quantiles(metric, by=""):
    legend = f"{{{{{by}}}}} " if by else ""
    labels = f"le, {by}" if by else "le"
    buckets = f"sum by ({labels}) (rate({metric}_bucket{{{POOL}}}{RATE}))"
    return [(f"histogram_quantile({q}, {buckets})", f"{legend}p{round(q * 100)}") for q in (0.5, 0.95)]


def mean(metric):
    return f"{per_second(metric + '_sum')} / {per_second(metric + '_count')}"


READ = "messaging_client_consumed_messages_total"
SENT = "messaging_client_sent_messages_total"
TOKENS = "moderato_model_tokens_total"
WORKER = "pod, instance"
WORKER_LEGEND = "{{pod}} {{instance}}"
SHADOW = "moderato_shadow_posts_total"
DIFFERS = ', outcome=~"label_differs|action_differs"'
COMPARED = ', outcome=~"agreed|label_differs|action_differs"'
PADDING = ', kind="padding"'
COMPUTED = ', kind=~"post|padding"'

ROWS = {
    "Now": [
        ("Posts read", "Posts a second.", "ops", "stat", 4, [(per_second(READ), "")]),
        ("Lag", "Posts that wait.", "short", "stat", 4, [(gauge("moderato_consumer_lag"), "")]),
        ("Age of the oldest post", "Of those not yet finished.", "s", "stat", 4,
         [(gauge("moderato_consumer_lag_time_seconds", "max"), "")]),
        ("Time to drain", "At the present speed; the slowest worker's.", "s", "stat", 4,
         [(gauge("moderato_time_to_drain_seconds", "max"), "")]),
        ("Workers", "That are scraped and have their model.", "short", "stat", 4, [(gauge("moderato_model_info", "count"), "")]),
        ("Dead letters", "Share of the posts read.", "percentunit", "stat", 4,
         [(f"({per_second('moderato_rejections_total')} or vector(0)) / {per_second(READ)}", "")]),
    ],
    "Road": [
        ("Throughput", "Posts in, records out, by topic.", "ops", "timeseries", 12,
         [(per_second(READ, "messaging_destination_name"), "in: {{messaging_destination_name}}"),
          (per_second(SENT, "messaging_destination_name"), "out: {{messaging_destination_name}}")]),
        ("Lag in posts", "By partition.", "short", "timeseries", 6,
         [(gauge("moderato_consumer_lag", "max", "partition"), "{{partition}}")]),
        ("Lag in seconds", "Age of the oldest post not yet finished, by partition.", "s", "timeseries", 6,
         [(gauge("moderato_consumer_lag_time_seconds", "max", "partition"), "{{partition}}")]),
        ("Time to drain", "What KEDA may scale on.", "s", "timeseries", 6,
         [(gauge("moderato_time_to_drain_seconds", "max"), "slowest worker")]),
        ("From poll to receipt", "How long one post takes.", "s", "timeseries", 6,
         quantiles("messaging_process_duration_seconds")),
        ("Stages", "How long a post is in each.", "s", "timeseries", 12, quantiles("moderato_stage_duration_seconds", "stage")),
        ("Kafka", "How long commit and send take, p95.", "s", "timeseries", 6,
         quantiles("messaging_client_operation_duration_seconds", "messaging_operation_name")[1:]),
        ("In flight", "Posts polled and not finished.", "short", "timeseries", 6, [(gauge("moderato_in_flight"), "in flight")]),
        ("Partitions", "Assigned, and paused for want of room.", "short", "timeseries", 6,
         [(gauge("moderato_partitions_assigned"), "assigned"), (gauge("moderato_partitions_paused"), "paused")]),
        ("Rebalances", "In the last half hour, the most of one worker.", "short", "timeseries", 6,
         [(f"max (increase(moderato_rebalances_total{{{POOL}}}[30m]))", "rebalances")]),
    ],
    "Verdicts": [
        ("By label", "Verdicts a second.", "ops", "bars", 8, [(per_second("moderato_verdicts_total", "label"), "{{label}}")]),
        ("By action", "Verdicts a second.", "ops", "bars", 8, [(per_second("moderato_verdicts_total", "action"), "{{action}}")]),
        ("By who answered", "Verdicts a second.", "ops", "bars", 8,
         [(per_second("moderato_verdicts_total", "answered_by"), "{{answered_by}}")]),
        ("Dead letters", "By reason, a second.", "ops", "bars", 8,
         [(per_second("moderato_rejections_total", "error_type, stage"), "{{error_type}} ({{stage}})")]),
        ("Notes", "By form, a second.", "ops", "bars", 8, [(per_second("moderato_notes_total", "form"), "{{form}}")]),
        ("Tombstones", "Passed on, a second.", "ops", "timeseries", 8,
         [(per_second("moderato_tombstones_total"), "tombstones")]),
    ],
    "Policy": [
        ("Calibration drift", "Share of the posts that would have to move for the scores to be those calibrated on.",
         "percentunit", "timeseries", 8, [(gauge("moderato_calibration_drift", "max", "label"), "{{label}}")]),
        ("Quotas", "Verdicts of the last hour whose act became review.", "short", "timeseries", 8,
         [(f"sum by (label, action) (increase(moderato_quota_exceeded_total{{{POOL}}}[1h]))", "{{label}}: {{action}}")]),
        ("Shadow disagreement", "Share of compared posts on which the shadow gives another label or action.", "percentunit",
         "timeseries", 8, [(f"{per_second(SHADOW, 'outcome', DIFFERS)} / ignoring (outcome) group_left "
                            f"{per_second(SHADOW, '', COMPARED)}", "{{outcome}}")]),
        ("Policies", "Workers by the revision that they judge by.", "short", "timeseries", 8,
         [(gauge("moderato_policy_info", "count", "policy, revision"), "{{policy}} {{revision}}")]),
        ("Policy refused", "Workers that refused the file on disk and go on with the one before.", "short", "timeseries", 8,
         [(gauge("moderato_policy_stale"), "stale")]),
        ("Reloads", "In the last hour.", "short", "timeseries", 8,
         [(f"sum by (outcome) (increase(moderato_policy_reloads_total{{{POOL}}}[1h]))", "{{outcome}}")]),
    ],
    "Model and cache": [
        ("Tokens", "A second, by kind.", "ops", "bars", 6, [(per_second(TOKENS, "kind"), "{{kind}}")]),
        ("Padding waste", "Share of the tokens computed that belong to no post.", "percentunit", "timeseries", 6,
         [(f"{per_second(TOKENS, '', PADDING)} / "
           f"{per_second(TOKENS, '', COMPUTED)}", "padding")]),
        ("Batch", "Mean rows, and mean tokens.", "short", "timeseries", 6,
         [(mean("moderato_batch_rows"), "rows"), (mean("moderato_batch_tokens"), "tokens")]),
        ("Model busy", "Instances that run the model at a time.", "short", "timeseries", 6,
         [(per_second("moderato_model_busy_seconds_total"), "busy")]),
        ("Cache", "Lookups a second, by result.", "ops", "bars", 6,
         [(per_second("moderato_cache_lookups_total", "result"), "{{result}}")]),
        ("Cache breaker", "Workers that go without Redis.", "short", "timeseries", 6, [(gauge("moderato_cache_breaker"), "open")]),
        ("Nodes of the model", "By who runs them, and heavy ones that fell back to the CPU.", "short", "timeseries", 6,
         [(gauge("moderato_model_nodes", "max", "provider"), "{{provider}}"),
          (gauge("moderato_model_fallback_nodes", "max"), "fallback")]),
        ("Models", "Workers by model, precision and provider.", "short", "timeseries", 6,
         [(gauge("moderato_model_info", "count", "model, precision, provider"), "{{model}} {{precision}} {{provider}}")]),
    ],
    "Workers": [
        ("Posts read", "A second, by worker.", "ops", "timeseries", 8, [(per_second(READ, WORKER), WORKER_LEGEND)]),
        ("In flight", "By worker.", "short", "timeseries", 8, [(gauge("moderato_in_flight", "sum", WORKER), WORKER_LEGEND)]),
        ("Lag in posts", "By worker.", "short", "timeseries", 8, [(gauge("moderato_consumer_lag", "sum", WORKER), WORKER_LEGEND)]),
        ("Poll age", "Since the poll loop last moved.", "s", "timeseries", 8,
         [(gauge("moderato_poll_age_seconds", "max", WORKER), WORKER_LEGEND)]),
        ("Brokers", "To which a connection is open.", "short", "timeseries", 8,
         [(gauge("moderato_brokers_up", "min", WORKER), WORKER_LEGEND)]),
        ("Log lines left out", "In the last hour, because the same one had come too often.", "short", "timeseries", 8,
         [(f"sum by ({WORKER}) (increase(moderato_log_suppressed_total{{{POOL}}}[1h]))", WORKER_LEGEND)]),
        ("Schemas before posts", "Ids that the schema registry was asked for; unchecked: it did not tell.", "ops", "bars", 24,
         [(per_second("moderato_schema_lookups_total", "result"), "{{result}}")]),
    ],
}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, place, title, description, unit, kind, queries):
    custom = {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal"}} if kind == "bars" else {"fillOpacity": 10}
    defaults = {"unit": unit, "min": 0} | ({} if kind == "stat" else {"custom": custom})
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}} if kind == "stat" else {
        "legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number, "type": "stat" if kind == "stat" else "timeseries", "title": title, "description": description,
        "datasource": SOURCE, "gridPos": place, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [{"refId": chr(65 + i), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                    for i, (query, legend) in enumerate(queries)],
    }


def panels():
    out, y = [], 0
    for row, items in ROWS.items():
        out.append({"id": len(out) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
                    "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y = 0, y + 1
        height = 4 if items[0][3] == "stat" else 8
        for title, description, unit, kind, width, queries in items:
            if x + width > 24:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": width, "h": height}
            out.append(panel(len(out) + 1, place, title, description, unit, kind, queries))
            x += width
        y += height
    return out


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            "definition": query, "query": {"query": query, "refId": name}}


def dashboard():
    return {
        "uid": "moderato", "title": "moderato", "tags": ["moderato", "kafka"], "schemaVersion": 39, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "",
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
            variable("namespace", "Namespace", "label_values(moderato_in_flight, namespace)"),
            variable("job", "Pool", 'label_values(moderato_in_flight{namespace=~"$namespace"}, job)'),
        ]},
        "annotations": {"list": []}, "links": [], "panels": panels(),
    }


def written():
    """One panel a line, so that a change of one is a change of one line."""
    whole = dashboard()
    lines = ",\n  ".join(json.dumps(item) for item in whole["panels"])
    return json.dumps(whole | {"panels": []}, indent=1).replace('"panels": []', f'"panels": [\n  {lines}\n ]') + "\n"


if __name__ == "__main__":
    text = written()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else f"{TARGET} is not what {__file__} writes: run it")
    TARGET.write_text(text)
