"""What watches a deployment: rules that Prometheus accepts, alerts that fire when they should, a dashboard for both."""

from __future__ import annotations

import re
import shutil
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.deployment import DEPLOY, compose, objects, rendered, run

from monitoring import render

_MONITORING = DEPLOY / "monitoring"
_RULES = _MONITORING / "rules.yml"
_CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))


def _promtool(*arguments: object, fails: bool = False) -> str:
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = run(found, *arguments, check=False)
    assert bool(done.returncode) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@cache
def _groups() -> list[dict[str, Any]]:
    return list(yaml.safe_load(_RULES.read_text())["groups"])


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in _groups() for rule in group["rules"] if "alert" in rule}


def test_prometheus_accepts_configuration_and_rules() -> None:
    _promtool("check", "config", _MONITORING / "prometheus.yml")
    assert "rules found" in _promtool("check", "rules", _RULES)


def test_a_broken_rule_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "rules.yml"
    broken.write_text(_RULES.read_text().replace("sum by (model) (rate(", "sum by (model) (rat(", 1))
    assert "rat" in _promtool("check", "rules", broken, fails=True)


@pytest.mark.parametrize("path", _CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    _promtool("test", "rules", path)


def test_every_alert_is_tested_both_ways() -> None:
    cases = [
        case
        for path in _CASES
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == _alerts().keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == _alerts().keys()


@pytest.mark.parametrize("name", _alerts())
def test_every_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = _alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "runbook_url"}
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert path == "deploy/ALERTS.md"
    headings = re.findall(r"^## (.*)$", (DEPLOY / "ALERTS.md").read_text(), re.MULTILINE)
    assert (headings.count(name), anchor) == (1, name.lower())


def test_no_steps_are_for_an_alert_that_is_gone() -> None:
    text = (DEPLOY / "ALERTS.md").read_text()
    assert set(re.findall(r"\b(Radserve[A-Z]\w+)", text)) == _alerts().keys()
    assert set(re.findall(r"\(#(\w+)\)", text)) <= {name.lower() for name in _alerts()}


def test_nobody_elses_servers_are_watched() -> None:
    for rule in (rule for group in _groups() for rule in group["rules"]):
        expression = re.sub(r"by \([^)]*\)", "", rule["expr"])
        for name, matchers in re.findall(r"\b((?:nv_|envoy_)\w+|up)\b(?! *[=!])(\{[^}]*\})?", expression):
            assert re.search(r'job=~?"radserve-', matchers), name


@pytest.mark.parametrize("path", render.files(), ids=lambda path: path.name)
def test_what_is_rendered_is_committed(path: Path) -> None:
    assert path.read_text() == render.files()[path]


@pytest.mark.parametrize("path", ["overlays/single-gpu", "overlays/multi-gpu", "overlays/cpu"])
def test_kubernetes_has_the_same_rules_and_the_same_dashboard(path: str) -> None:
    found = objects(rendered(path))
    assert found["PrometheusRule", "radserve"]["spec"]["groups"] == _groups()
    board = found["ConfigMap", "grafana-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"] == {"radserve.json": (_MONITORING / "grafana" / "dashboards" / "radserve.json").read_text()}


def test_the_jobs_have_the_same_names_everywhere() -> None:
    config = yaml.safe_load((_MONITORING / "prometheus.yml").read_text())
    jobs = {one["job_name"] for one in config["scrape_configs"]}
    monitors = [one for (kind, _), one in objects(rendered("overlays/cpu")).items() if kind == "ServiceMonitor"]
    assert {one["spec"]["endpoints"][0]["relabelings"][0]["replacement"] for one in monitors} == jobs


def test_the_autoscaler_reads_how_long_a_request_of_a_pod_waits(tmp_path: Path) -> None:
    rule = yaml.safe_load(
        objects(rendered("overlays/multi-gpu"))["ConfigMap", "prometheus-adapter-rules"]["data"]["config.yaml"]
    )["rules"][0]
    query = (
        rule["metricsQuery"]
        .replace("<<.LabelMatchers>>", 'namespace="radserve",pod=~"a|b"')
        .replace("<<.GroupBy>>", "pod")
    )
    series = {
        "nv_inference_queue_duration_us": {"a": 600_000, "b": 0, "c": 900_000},
        "nv_inference_request_success": dict.fromkeys("abc", 20),
    }
    told = [
        {"series": f'{name}{{namespace="radserve", pod="{pod}", model="m"}}', "values": f"0+{step}x20"}
        for name, steps in series.items()
        for pod, step in steps.items()
    ]
    samples = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in (("a", 30), ("b", 0))]
    asked = {"expr": query, "eval_time": "10m", "exp_samples": samples}
    file = tmp_path / "autoscaler.yaml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": told, "promql_expr_test": [asked]}]}))
    _promtool("test", "rules", file)


def test_compose_gives_grafana_the_dashboard() -> None:
    grafana = compose()["services"]["grafana"]
    mount = grafana["volumes"][0]
    folder = mount["target"].rstrip("/")
    assert (DEPLOY / mount["source"]).resolve() == _MONITORING / "grafana"
    provider = yaml.safe_load((_MONITORING / "grafana" / "dashboards" / "radserve.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] == f"{folder}/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (_MONITORING / "grafana" / home.removeprefix(f"{folder}/")).is_file()


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = render.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 and box["w"] > 0 < box["h"] for box in boxes)
    for one, other in combinations(boxes, 2):
        apart = [
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        ]
        assert any(apart), (one, other)


def test_every_query_asks_the_prometheus_that_was_chosen() -> None:
    board = render.dashboard()
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [one["type"] for one in board["templating"]["list"]] == ["datasource", "query"]
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert {one["refId"] for one in panel["targets"]} == set("ABCDEF"[: len(panel["targets"])])
            assert all(one["datasource"] == chosen for one in (panel, *panel["targets"]))
    assert "uid: prometheus" in (_MONITORING / "grafana" / "datasources" / "prometheus.yaml").read_text()
