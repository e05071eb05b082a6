"""Writes what is made of something else here: Grafana's dashboard, and the rules as the Prometheus operator wants them.

python deploy/monitoring/render.py
"""  # noqa: INP001 - a script beside what it writes

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_COLUMNS = 24
_GATEWAY = 'job="radserve-envoy", envoy_cluster_name="triton"'
_MODELS = 'job="radserve-triton", model=~"$model"'
_CALLS = 'model=~"$model"'
_FAILED = "DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE"


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows.
        unit: Grafana's name of the unit.
        queries: PromQL by its legend.
        kind: Grafana's type of panel.
        limit: From where on it is red.
    """

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    limit: float | None = None


def _rate(metric: str, matchers: str, by: str = "model") -> str:
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def _quantiles(metric: str, matchers: str, by: str = "") -> dict[str, str]:
    legend = "{{model}} " if by else ""
    labels = ", ".join(filter(None, ("le", by)))
    return {
        f"{legend}p{percent}": f"histogram_quantile({percent / 100:g}, {_rate(metric, matchers, labels)})"
        for percent in (50, 95, 99)
    }


def _stat(title: str, unit: str, query: str, limit: float | None = None) -> Panel:
    return Panel(title, unit, {"": query}, "stat", limit)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        _stat("Replicas that answer", "none", f"min(envoy_cluster_membership_healthy{{{_GATEWAY}}})"),
        _stat("Alerts", "none", 'count(ALERTS{alertname=~"Radserve.+", alertstate="firing"}) or vector(0)', 1),
        _stat("Answers", "reqps", "sum(code:radserve_answers:rate5m)"),
        _stat(
            "Failed",
            "percentunit",
            f'(sum(code:radserve_answers:rate5m{{code=~"{_FAILED}"}}) or vector(0))'
            " / sum(code:radserve_answers:rate5m)",
            0.01,
        ),
        _stat("Later than 1 s, last hour", "percentunit", "radserve_late:ratio_rate1h", 0.01),
        _stat("First certificate expires in", "s", "min(certificate:radserve_certificate_left_seconds:min)"),
    ),
    "Gateway": (
        Panel("Answers by code", "reqps", {"{{code}}": "code:radserve_answers:rate5m"}),
        Panel("Time to answer", "ms", _quantiles("envoy_cluster_upstream_rq_time_bucket", _GATEWAY)),
        Panel(
            "Replicas",
            "none",
            {
                "healthy, for {{instance}}": f"envoy_cluster_membership_healthy{{{_GATEWAY}}}",
                "all, for {{instance}}": f"envoy_cluster_membership_total{{{_GATEWAY}}}",
                "ejected, by {{instance}}": f"envoy_cluster_outlier_detection_ejections_active{{{_GATEWAY}}}",
            },
        ),
        Panel(
            "Under way",
            "none",
            {
                "requests": f"sum(envoy_cluster_upstream_rq_active{{{_GATEWAY}}})",
                "connections": (
                    "sum(envoy_http_downstream_cx_active"
                    '{job="radserve-envoy", envoy_http_conn_manager_prefix="gateway"})'
                ),
            },
        ),
        Panel(
            "Asked again, refused, given up",
            "reqps",
            {
                "asked again": f"sum(rate(envoy_cluster_upstream_rq_retry{{{_GATEWAY}}}[$__rate_interval]))",
                "rate limit": (
                    "sum(rate(envoy_http_local_rate_limit_rate_limited"
                    '{job="radserve-envoy", envoy_local_http_ratelimit_prefix="clients"}[$__rate_interval]))'
                ),
                "forbidden": (
                    "sum(rate(envoy_http_rbac_denied"
                    '{job="radserve-envoy", envoy_http_conn_manager_prefix="gateway"}[$__rate_interval]))'
                ),
                "deadline passed": f"sum(rate(envoy_cluster_upstream_rq_tx_reset{{{_GATEWAY}}}[$__rate_interval]))",
            },
        ),
        Panel(
            "Canaries",
            "reqps",
            {
                "answered": f"sum(rate(envoy_cluster_health_check_success{{{_GATEWAY}}}[$__rate_interval]))",
                "failed": f"sum(rate(envoy_cluster_health_check_failure{{{_GATEWAY}}}[$__rate_interval]))",
            },
        ),
    ),
    "Models": (
        Panel("Requests, canaries too", "reqps", {"{{model}}": _rate("nv_inference_request_success", _MODELS)}),
        Panel(
            "Failures by reason",
            "percentunit",
            {"{{model}} {{reason}}": 'model_reason:radserve_failures:ratio_rate5m{model=~"$model"}'},
        ),
        Panel("Wait", "s", {"{{model}}": 'model:radserve_queue_seconds:mean5m{model=~"$model"}'}, limit=0.1),
        Panel("Waiting", "none", {"{{model}}": f"sum by (model) (nv_inference_pending_request_count{{{_MODELS}}})"}),
        Panel(
            "Computing",
            "s",
            {
                "{{model}}": _rate("nv_inference_compute_infer_duration_us", _MODELS)
                + f" / 1e6 / {_rate('nv_inference_request_success', _MODELS)}"
            },
        ),
        Panel(
            "Batch size",
            "none",
            {"{{model}}": f"{_rate('nv_inference_count', _MODELS)} / {_rate('nv_inference_exec_count', _MODELS)}"},
        ),
    ),
    "Machines": (
        Panel(
            "GPU memory",
            "percentunit",
            {
                "{{instance}} {{gpu_uuid}}": 'nv_gpu_memory_used_bytes{job="radserve-triton"}'
                ' / nv_gpu_memory_total_bytes{job="radserve-triton"}'
            },
            limit=0.95,
        ),
        Panel("GPU", "percentunit", {"{{instance}} {{gpu_uuid}}": 'nv_gpu_utilization{job="radserve-triton"}'}),
        Panel(
            "Processors and memory",
            "percentunit",
            {
                "processors of {{instance}}": 'nv_cpu_utilization{job="radserve-triton"}',
                "memory of {{instance}}": 'nv_cpu_memory_used_bytes{job="radserve-triton"}'
                ' / nv_cpu_memory_total_bytes{job="radserve-triton"}',
            },
        ),
    ),
    "Callers": (
        Panel("Calls", "reqps", {"{{model}} {{outcome}}": _rate("radserve_requests_total", _CALLS, "model, outcome")}),
        Panel("A call", "s", _quantiles("radserve_request_seconds_bucket", _CALLS, "model")),
        Panel("Reading and preparing a file", "s", _quantiles("radserve_prepare_seconds_bucket", _CALLS, "model")),
        Panel(
            "Inputs, distance from the reference",
            "none",
            {"{{model}} {{version}}": 'model:radserve_input_level:distance1d{model=~"$model"}'},
            limit=0.25,
        ),
        Panel(
            "Scores, distance from the reference",
            "none",
            {"{{model}} {{version}} {{label}}": 'model_label:radserve_score:distance1d{model=~"$model"}'},
            limit=0.25,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Grafana's model of the dashboard."""
    panels: list[dict[str, Any]] = []
    numbers, top = count(1), 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        panels.append({"id": next(numbers), "type": "row", "title": title, "collapsed": False, "gridPos": place})
        top += 1
        a_line, height = (len(row), 4) if row[0].kind == "stat" else (3, 8)
        for position, panel in enumerate(row):
            line, column = divmod(position, a_line)
            width = _COLUMNS // a_line
            place = {"x": column * width, "y": top + line * height, "w": width, "h": height}
            panels.append({"id": next(numbers), **_panel(panel), "gridPos": place})
        top += -(-len(row) // a_line) * height
    source = {"type": "prometheus", "uid": "${datasource}"}
    label = "label_values(nv_inference_request_success, model)"
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": source,
            "query": {"query": label, "refId": "model"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]
    return {
        "uid": "radserve",
        "title": "radserve",
        "tags": ["radserve"],
        "schemaVersion": 41,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": {"thresholdsStyle": {"mode": "line" if panel.limit else "off"}}}
    targets = [
        {"refId": chr(ord("A") + number), "datasource": source, "expr": query, "legendFormat": legend}
        for number, (legend, query) in enumerate(panel.queries.items())
    ]
    made = {"type": panel.kind, "title": panel.title, "datasource": source, "targets": targets}
    return made | {"fieldConfig": {"defaults": defaults, "overrides": []}}


def prometheus_rule() -> str:
    """rules.yml as an object of the Prometheus operator."""
    head = (
        "# Made of rules.yml by render.py.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n"
        "metadata:\n  name: radserve\nspec:\n"
    )
    lines = (_HERE / "rules.yml").read_text(encoding="utf-8").splitlines()
    return head + "".join(f"  {line}\n" if line else "\n" for line in lines if not line.startswith("#"))


def files() -> dict[Path, str]:
    """All of them by where they are kept."""
    return {
        _HERE / "prometheusrule.yaml": prometheus_rule(),
        _HERE / "grafana" / "dashboards" / "radserve.json": json.dumps(dashboard(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
