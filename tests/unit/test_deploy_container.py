"""The image and the Compose file: valid, least privilege, and nothing secret in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from support.deployment import DEPLOY, ROOT, compose, run, tool

if TYPE_CHECKING:
    from pathlib import Path

_DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
_COMPOSE = DEPLOY / "compose.yaml"
_TRITONS = ("triton", "triton-cpu")
_SERVICES = ("envoy", "grafana", "prometheus", "triton", "triton-cpu", "verify")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert not run(tool("hadolint"), "--failure-threshold", "style", _DOCKERFILE).stdout


def test_hadolint_finds_what_is_wrong_in_a_broken_copy(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(_DOCKERFILE.read_text().replace("--no-cache-dir ", ""))
    assert "DL3042" in run(tool("hadolint"), broken, check=False).stdout


def test_compose_follows_the_specification() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", _COMPOSE)


def test_a_broken_compose_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(_COMPOSE.read_text().replace("cap_drop:", "cap_dropped:", 1))
    schema = ("--builtin-schema", "vendor.compose-spec")
    assert run(tool("check-jsonschema"), *schema, broken, check=False).returncode == 1


def _refused(whole: dict[str, Any]) -> set[str]:
    """What Docker Compose refuses of a file that follows the specification, as compose-go's ``loader/validate.go``."""
    found = set()
    for name, service in whole["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits")
        found |= {f"{name} has two limits" for own in ("pids_limit", "mem_limit", "cpus") if limits and own in service}
        if {"network_mode", "networks"} <= service.keys():
            found.add(f"{name} has two networks")
        named = {
            "networks": set(service.get("networks", ())),
            "secrets": {one["source"] for one in service.get("secrets", ())},
            "volumes": {one["source"] for one in service.get("volumes", ()) if one["type"] == "volume"},
            "services": set(service.get("depends_on", ())),
        }
        found |= {f"{name} names no {one}" for kind, names in named.items() for one in names - whole[kind].keys()}
    return found


def test_docker_compose_itself_would_take_it() -> None:
    assert _refused(compose()) == set()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pids_limit": 4096}, "envoy has two limits"),
        ({"network_mode": "none"}, "envoy has two networks"),
        ({"depends_on": {"absent": {"condition": "service_started"}}}, "envoy names no absent"),
    ],
)
def test_what_docker_compose_would_refuse_is_seen(settings: dict[str, Any], message: str) -> None:
    whole = compose()
    whole["services"]["envoy"] |= settings
    assert _refused(whole) == {message}


def test_a_smaller_machine_needs_one_variable(services: dict[str, Any]) -> None:
    text = _COMPOSE.read_text()
    cpus = [services[name]["deploy"]["resources"]["limits"]["cpus"] for name in _TRITONS]
    assert (cpus, text.count("${RADSERVE_CPUS:-")) == (["8", "4"], 2)
    assert all(services[name]["deploy"]["resources"]["limits"]["pids"] == 4096 for name in _TRITONS)


def test_keys_in_the_folder_that_compose_looks_in_are_never_committed() -> None:
    folder = re.findall(r"RADSERVE_CERTIFICATES:-\./([\w-]+)\}", _COMPOSE.read_text())
    assert set(folder) == {"certificates"}
    assert "deploy/certificates/" in (ROOT / ".gitignore").read_text().splitlines()


def test_grafana_fetches_nothing(services: dict[str, Any]) -> None:
    environment = services["grafana"]["environment"]
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    asking = [name for name in environment if "CHECK_FOR" in name or "REPORTING" in name or "FEED" in name]
    assert len(asking) == 4
    assert all(environment[name] == "false" for name in asking)


def test_what_the_dockerfile_copies_is_there_and_reaches_the_builder() -> None:
    copied = [line.split()[1:-1] for line in _DOCKERFILE.read_text().splitlines() if line.startswith("COPY ")]
    sources = {one for words in copied for one in words if not one.startswith(("--", "/"))}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources | let_through)
    assert all(any(source in (kept, kept.split("/")[0]) for kept in let_through) for source in sources)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_image_runs_as_nobody_special_and_asks_its_models() -> None:
    text = _DOCKERFILE.read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
    assert re.search(r'^HEALTHCHECK (.*\\\n)?.*CMD \["radserve", "health"', text, re.MULTILINE)


@pytest.mark.parametrize("name", _SERVICES)
def test_every_service_is_confined(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"} | (
        {"pids"} if name in _TRITONS else set()
    )
    assert "privileged" not in service


def test_there_are_no_other_services(services: dict[str, Any]) -> None:
    assert sorted(services) == sorted(_SERVICES)


@pytest.mark.parametrize("name", _TRITONS)
def test_triton_serves_what_was_verified_from_a_read_only_mount(services: dict[str, Any], name: str) -> None:
    service = services[name]
    mount, engines = service["volumes"]
    assert engines == {"type": "volume", "source": "engines", "target": "/cache"}
    assert (mount["target"], mount["read_only"], mount["bind"]["create_host_path"]) == ("/models", True, False)
    assert service["depends_on"] == {"verify": {"condition": "service_completed_successfully"}}
    assert services["verify"]["entrypoint"] == ["radserve", "check", "--manifests", "/models"]
    assert service["shm_size"] == "2gb"
    assert service["networks"]["serving"]["aliases"] == ["triton"]
    assert "ports" not in service


def test_a_gpu_is_the_default_and_the_cpu_a_profile(services: dict[str, Any]) -> None:
    devices = services["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "devices" not in services["triton-cpu"]["deploy"]["resources"]["reservations"]
    assert [services[name]["profiles"] for name in _TRITONS] == [["gpu"], ["cpu"]]
    assert "COMPOSE_PROFILES=gpu" in (DEPLOY / ".env").read_text()


def test_callers_reach_envoy_alone(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.pop("envoy") == ["8443:8443"]
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert compose()["networks"]["serving"] == {"internal": True}


def test_secrets_are_files() -> None:
    whole = compose()
    assert all(secret.keys() == {"file"} for secret in whole["secrets"].values())
    used = {secret["source"] for service in whole["services"].values() for secret in service.get("secrets", ())}
    assert used == whole["secrets"].keys()
    settings = [*(service.get("environment", {}) for service in whole["services"].values())]
    secret = re.compile("password|secret|token|key", re.IGNORECASE)
    named = {name for environment in settings for name in environment if secret.search(name)}
    assert all(name.endswith("__FILE") for name in named)


def test_triton_is_given_time_to_answer_what_it_has_in_hand(services: dict[str, Any]) -> None:
    text = (DEPLOY / "docker" / "entrypoint").read_text()
    drain = re.search(r"--exit-timeout-secs=(\d+)", text)
    assert drain
    for name in _TRITONS:
        assert int(services[name]["stop_grace_period"].rstrip("s")) > int(drain[1])
