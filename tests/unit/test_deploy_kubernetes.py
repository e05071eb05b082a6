"""What Kubernetes is given: rendered by kubectl, accepted by the schemas, and with every property that matters."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.deployment import DEPLOY, kubectl, objects, problems, rendered, run, versions

from radserve_server.probe import _CALL_S, _CANARY_S

if TYPE_CHECKING:
    from pathlib import Path

_OVERLAYS = ("overlays/single-gpu", "overlays/multi-gpu", "overlays/cpu")
_RELEASE = ("release/publish", "release/compare")
_CONTAINERS = {"containers", "initContainers"}


def _of(path: str, kind: str, name: str) -> dict[str, Any]:
    return objects(rendered(path))[kind, name]


def _pods(path: str) -> dict[str, dict[str, Any]]:
    """The pods' specs by the name of what makes them."""
    found = objects(rendered(path)).items()
    return {
        name.removesuffix("-next"): one["spec"]["template"]["spec"]
        for (kind, name), one in found
        if kind in {"Deployment", "Job"}
    }


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for field in _CONTAINERS for container in pod.get(field, ())]


def _triton(path: str = "overlays/multi-gpu") -> dict[str, Any]:
    pod = _pods(path)["triton"]
    (container,) = pod["containers"]
    return dict(container)


@pytest.mark.parametrize("path", [*_OVERLAYS, *_RELEASE])
def test_every_rendering_is_accepted_without_a_warning(path: str, tmp_path: Path) -> None:
    assert problems(rendered(path), tmp_path) == ""


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("maxUnavailable: 0", "mostUnavailable: 0"),
        ("containerPort: 8001", "containerPort: eight"),
        ("apiVersion: autoscaling/v2", "apiVersion: autoscaling/v2beta9"),
        ("scrapeTimeout: 10s", "scrapeTimeout: soon"),
        ("kind: PodDisruptionBudget", "kind: PodDisruptionBudge"),
    ],
)
def test_a_broken_copy_is_refused(sound: str, broken: str, tmp_path: Path) -> None:
    text = rendered("overlays/multi-gpu")
    assert sound in text
    assert problems(text.replace(sound, broken, 1), tmp_path)


@pytest.mark.parametrize("path", [*_OVERLAYS, *_RELEASE])
def test_every_image_is_one_of_the_versions(path: str) -> None:
    images = {container["image"] for pod in _pods(path).values() for container in _containers(pod)}
    assert images <= set(versions().values())
    assert versions()["RADSERVE_IMAGE"] in images


@pytest.mark.parametrize("path", [*_OVERLAYS, *_RELEASE])
def test_every_pod_is_restricted(path: str) -> None:
    for pod in _pods(path).values():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 1000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in _containers(pod):
            confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert container["securityContext"] == {**confined, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize("path", _OVERLAYS)
def test_the_namespace_enforces_that(path: str) -> None:
    assert (
        _of(path, "Namespace", "radserve")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )


@pytest.mark.parametrize("path", _OVERLAYS)
def test_ready_is_who_answers_a_real_inference(path: str) -> None:
    for probe in ("startupProbe", "readinessProbe"):
        command = _triton(path)[probe]["exec"]["command"]
        assert command[:2] == ["radserve", "health"]
        assert float(command[-1]) < _triton(path)[probe]["timeoutSeconds"]


@pytest.mark.parametrize("path", _OVERLAYS)
def test_a_busy_server_is_given_a_minute_and_another_probe(path: str) -> None:
    probe = _triton(path)["livenessProbe"]
    assert probe["exec"]["command"] == ["/opt/radserve/bin/python", "-m", "radserve_server.probe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
    assert probe["timeoutSeconds"] > _CANARY_S + 2 * _CALL_S  # else the kubelet, not the probe, says that it is dead
    startup = _triton(path)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


@pytest.mark.parametrize("path", _OVERLAYS)
def test_a_leaving_replica_answers_what_it_has_in_hand(path: str) -> None:
    drain = re.search(r"--exit-timeout-secs=(\d+)", (DEPLOY / "docker" / "entrypoint").read_text())
    assert drain
    leaves_s = _triton(path)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leaves_s >= 15  # Envoy asks for the replicas' addresses every 2 s, and CoreDNS keeps them for 5
    assert _pods(path)["triton"]["terminationGracePeriodSeconds"] > leaves_s + int(drain[1])


def test_a_leaving_gateway_sends_its_clients_elsewhere_first() -> None:
    pod = _pods("overlays/cpu")["envoy"]
    script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "POST /healthcheck/fail" in script
    assert pod["terminationGracePeriodSeconds"] > int(script.rpartition("sleep ")[2])


@pytest.mark.parametrize("path", _OVERLAYS)
@pytest.mark.parametrize("name", ["triton", "envoy"])
def test_replicas_are_apart_and_are_not_evicted_together(path: str, name: str) -> None:
    affinity = _pods(path)[name]["affinity"]["podAntiAffinity"]
    own = {"matchLabels": {"app.kubernetes.io/name": name}}
    terms = [one["podAffinityTerm"] for one in affinity["preferredDuringSchedulingIgnoredDuringExecution"]]
    assert terms[0]["topologyKey"] == "kubernetes.io/hostname"
    assert all(term["labelSelector"] == own for term in terms)
    assert _of(path, "Deployment", name)["spec"]["template"]["metadata"]["labels"].items() >= own["matchLabels"].items()
    budget = _of(path, "PodDisruptionBudget", name)["spec"]
    assert budget["selector"] == own
    assert budget.get("maxUnavailable", budget.get("minAvailable")) == 1


def test_a_release_rolls_over_without_a_gap_where_there_is_more_than_one_gpu() -> None:
    for path in ("overlays/multi-gpu", "overlays/cpu"):
        assert _of(path, "Deployment", "triton")["spec"]["strategy"]["rollingUpdate"] == {
            "maxSurge": 1,
            "maxUnavailable": 0,
        }
    single = _of("overlays/single-gpu", "Deployment", "triton")["spec"]
    assert (single["replicas"], single["strategy"]["rollingUpdate"]["maxSurge"]) == (1, 0)


def test_each_overlay_has_its_hardware() -> None:
    for path in ("overlays/single-gpu", "overlays/multi-gpu"):
        assert _triton(path)["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert _pods(path)["triton"]["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ]
    assert "nvidia.com/gpu" not in rendered("overlays/cpu")


def test_there_are_more_replicas_where_requests_wait() -> None:
    for path in ("overlays/multi-gpu", "overlays/cpu"):
        spec = _of(path, "HorizontalPodAutoscaler", "triton")["spec"]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "triton"}
        assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
        assert "replicas" not in _of(path, "Deployment", "triton")["spec"]
        (metric,) = spec["metrics"]
        rules = yaml.safe_load(_of(path, "ConfigMap", "prometheus-adapter-rules")["data"]["config.yaml"])["rules"]
        assert [rule["name"]["as"] for rule in rules] == [metric["pods"]["metric"]["name"]]
        assert "nv_inference_queue_duration_us" in rules[0]["metricsQuery"]
    assert not any(kind == "HorizontalPodAutoscaler" for kind, _ in objects(rendered("overlays/single-gpu")))


@pytest.mark.parametrize("path", _OVERLAYS)
def test_nothing_reaches_the_replicas_but_the_gateway_and_prometheus(path: str) -> None:
    deny = _of(path, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    triton = _of(path, "NetworkPolicy", "triton")["spec"]
    assert "egress" not in triton
    allowed = {rule["ports"][0]["port"]: rule["from"] for rule in triton["ingress"]}
    assert allowed == {
        8001: [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "envoy"}}}],
        8002: [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    }


@pytest.mark.parametrize("path", _OVERLAYS)
def test_the_gateway_is_reached_by_callers_and_reaches_replicas_and_names_alone(path: str) -> None:
    envoy = _of(path, "NetworkPolicy", "envoy")["spec"]
    assert {rule["ports"][0]["port"]: rule.get("from") for rule in envoy["ingress"]} == {
        8443: None,
        9902: [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    }
    replicas, names = envoy["egress"]
    assert replicas == {
        "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "triton"}}}],
        "ports": [{"port": 8001, "protocol": "TCP"}],
    }
    assert names["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}


@pytest.mark.parametrize("path", _OVERLAYS)
def test_the_gateway_balances_over_a_headless_service(path: str) -> None:
    service = _of(path, "Service", "triton-replicas")["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == {"app.kubernetes.io/name": "triton"}
    config = yaml.safe_load(_of(path, "ConfigMap", "envoy")["data"]["envoy.yaml"])
    cluster = next(one for one in config["static_resources"]["clusters"] if one["name"] == "triton")
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "triton-replicas", "port_value": service["ports"][0]["port"]}
    assert _of(path, "Service", "radserve")["spec"]["selector"] == {"app.kubernetes.io/name": "envoy"}


@pytest.mark.parametrize("path", _OVERLAYS)
def test_the_mounts_are_where_image_and_gateway_look(path: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in _triton(path)["volumeMounts"]}
    written = {"/tmp", "/cache", "/dev/shm"}  # noqa: S108
    assert mounts.keys() == written | {"/models", "/run/secrets/triton", "/run/secrets/client"}
    assert all(mounts[folder]["readOnly"] for folder in ("/models", "/run/secrets/triton", "/run/secrets/client"))
    text = rendered(path)
    for folder in ("/run/secrets/gateway", "/run/secrets/client"):
        assert f'"filename": "{folder}/tls.key"' in text
    envoy = {mount["mountPath"] for mount in _pods(path)["envoy"]["containers"][0]["volumeMounts"]}
    assert envoy == {"/etc/envoy", "/run/secrets/gateway", "/run/secrets/client", "/tmp"}  # noqa: S108


@pytest.mark.parametrize("path", _OVERLAYS)
def test_every_manifest_is_verified_before_a_release_is_served(path: str) -> None:
    pod = _pods(path)["triton"]
    verify = pod["initContainers"][-1]
    assert verify["command"] == ["radserve", "check", "--manifests", "/models"]
    mounts = [
        next(mount for mount in one["volumeMounts"] if mount["mountPath"] == "/models")
        for one in (verify, *pod["containers"])
    ]
    assert mounts[0] == mounts[1]
    assert mounts[0]["subPathExpr"] == "$(RELEASE)"


@pytest.mark.parametrize("path", _OVERLAYS)
def test_prometheus_finds_replicas_and_gateways(path: str) -> None:
    found = objects(rendered(path))
    for name, service in (("triton", "triton-replicas"), ("envoy", "envoy-metrics")):
        monitor = _of(path, "ServiceMonitor", name)["spec"]
        labels = found["Service", service]["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        ports = {port["name"] for port in found["Service", service]["spec"]["ports"]}
        assert monitor["endpoints"][0]["port"] in ports


@pytest.mark.parametrize("path", [*_OVERLAYS, *_RELEASE])
def test_no_secret_is_in_the_files(path: str) -> None:
    found = objects(rendered(path))
    assert not any(kind == "Secret" for kind, _ in found)
    assert "PRIVATE KEY" not in rendered(path)
    for pod in _pods(path).values():
        for container in _containers(pod):
            for variable in container.get("env", ()):
                assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]) or "valueFrom" in variable


def test_every_reference_leads_somewhere() -> None:
    outside = {"triton-server-tls", "triton-client-tls", "gateway-tls", "object-store", "reference-set", "repository"}
    for path in (*_OVERLAYS, *_RELEASE):
        names = {one["metadata"]["name"] for one in objects(rendered(path)).values()} | outside
        for pod in _pods(path).values():
            referred = set(re.findall(r"'(?:name|secretName|claimName)': '([^']+)'", str(pod.get("volumes"))))
            own = {volume["name"] for volume in pod["volumes"]}
            assert referred - own <= names
            for container in _containers(pod):
                assert {mount["name"] for mount in container["volumeMounts"]} <= own
                for variable in container.get("env", ()):
                    source = variable.get("valueFrom", {})
                    assert all(reference["name"] in names for reference in source.values())


@pytest.fixture
def with_object_store(tmp_path: Path) -> str:
    here = os.path.relpath(DEPLOY / "kubernetes", tmp_path.resolve())
    components = [f"{here}/components/gpu", f"{here}/components/object-store", f"{here}/../versions"]
    overlay = {"resources": [f"{here}/base"], "components": components, "namespace": "radserve"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return run(kubectl(), "kustomize", tmp_path).stdout


def test_models_may_come_from_an_object_store(with_object_store: str, tmp_path: Path) -> None:
    assert problems(with_object_store, tmp_path) == ""
    found = objects(with_object_store)
    assert ("PersistentVolumeClaim", "repository") not in found
    pod = found["Deployment", "triton"]["spec"]["template"]["spec"]
    assert [one["name"] for one in pod["initContainers"]] == ["fetch", "verify"]
    assert pod["initContainers"][0]["image"] == versions()["RCLONE_IMAGE"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "repository")
    assert volume.keys() == {"name", "emptyDir"}
    keys = [one for one in pod["initContainers"][0]["env"] if "KEY" in one["name"]]
    assert all(one["valueFrom"]["secretKeyRef"]["name"] == "object-store" for one in keys)
    assert len(keys) == 2


def test_a_release_is_verified_before_it_gets_its_name_and_never_written_over() -> None:
    pod = _pods("release/publish")["publish"]
    (container,) = pod["containers"]
    verify, refuse, rename = container["args"][0].strip().splitlines()
    assert verify == 'radserve check --manifests "/repository/.incoming/$RELEASE"'
    assert refuse.startswith('test ! -e "/repository/$RELEASE" ||')
    assert rename.startswith("mv ")
    assert container["command"] == ["/bin/sh", "-euc"]


def test_publishing_serves_nothing_and_comparing_changes_nothing() -> None:
    publish = objects(rendered("release/publish"))
    assert {kind for kind, _ in publish} == {"Job", "ConfigMap", "NetworkPolicy"}
    assert publish["ConfigMap", "candidate"]["data"].keys() == {"RELEASE"}
    pod = _pods("release/compare")["compare"]
    assert all(one.get("persistentVolumeClaim", {"readOnly": True})["readOnly"] for one in pod["volumes"])
    candidate = next(one for one in pod["initContainers"] if one["name"] == "candidate")
    assert candidate["restartPolicy"] == "Always"
    assert pod["containers"][0]["command"][-1] == "radserve_server.compare"


@pytest.mark.parametrize("path", _RELEASE)
def test_each_release_has_a_job_of_its_own_as_none_can_be_changed(path: str, tmp_path: Path) -> None:
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY / "kubernetes" / "release", copy / "kubernetes" / "release")
    shutil.copytree(DEPLOY / "versions", copy / "versions")
    named = copy / "kubernetes" / path / "kustomization.yaml"
    named.write_text(named.read_text().replace("RELEASE=next", "RELEASE=2026-11-23"))
    text = run(kubectl(), "kustomize", named.parent).stdout
    assert [name for kind, name in objects(text) if kind == "Job"] == [f"{named.parent.name}-2026-11-23"]
    images = set(re.findall(r" image: (.*)", text))
    assert images == set(re.findall(r" image: (.*)", rendered(path)))
    assert problems(text, tmp_path) == ""


def test_what_is_served_is_one_line_of_an_overlay() -> None:
    for path in _OVERLAYS:
        text = (DEPLOY / "kubernetes" / path / "kustomization.yaml").read_text()
        assert text.count("RELEASE=") == 1
        release = next(one for one in objects(rendered(path)).items() if one[0] == ("ConfigMap", "release"))[1]
        assert re.fullmatch(r"release-[a-z0-9]{10}", release["metadata"]["name"])  # another release rolls over


def test_the_gateway_gets_all_of_its_rendered_files() -> None:
    files = {path.name for path in (DEPLOY / "kubernetes" / "base" / "envoy").iterdir()}
    assert _of("overlays/cpu", "ConfigMap", "envoy")["data"].keys() == files
