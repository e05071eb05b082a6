"""The gateway's template, as each place renders it, judged by the real Envoy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.deployment import DEPLOY, ROOT, run, tool
from support.sdk_contracts import TEXT, contract, tensors
from tritonclient.grpc import service_pb2
from typer.testing import CliRunner

from radserve import InputError
from radserve.contracts import Datatype, TensorSpec
from radserve.errors import RepositoryError
from radserve_server.gateway import (
    Canary,
    Gateway,
    Tokens,
    canary_among,
    canary_of,
    compose,
    fill,
    kubernetes,
    render,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

_REMOTE = Tokens(issuer="https://idp.example/", audience="radserve", jwks="https://idp.example:8443/keys")
_COMMITTED = {compose: DEPLOY / "envoy" / "compose", kubernetes: DEPLOY / "kubernetes" / "base" / "envoy"}
_WAYS: dict[str, dict[str, Any]] = {
    "certificates": {},
    "tokens": {"tokens": _REMOTE, "mutual_tls": False},
    "both": {"tokens": _REMOTE},
    "plain replicas": {"upstream_certificates": None},
    "traces": {"collector": ("collector", 4317)},
}


@pytest.fixture(scope="module")
def canary() -> Canary:
    return canary_of(ROOT / "model_repository")


def _local(gateway: Gateway, folder: Path) -> Gateway:
    return replace(gateway, folder=str(folder))


def _validated(folder: Path) -> str:
    done = run(tool("envoy"), "--mode", "validate", "-c", folder / "envoy.yaml", "--log-level", "warning", check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("place", _COMMITTED)
@pytest.mark.parametrize("way", _WAYS)
def test_envoy_takes_every_rendering_without_a_warning(canary: Canary, place: Any, way: str, tmp_path: Path) -> None:
    write(_local(replace(place(canary), **_WAYS[way]), tmp_path), tmp_path)
    assert _validated(tmp_path) == f"configuration '{tmp_path / 'envoy.yaml'}' OK\n"


def test_envoy_refuses_a_broken_rendering(canary: Canary, tmp_path: Path) -> None:
    write(_local(compose(canary), tmp_path), tmp_path)
    config = tmp_path / "envoy.yaml"
    config.write_text(config.read_text().replace("max_ejection_percent", "most_ejection_percent"))
    assert "most_ejection_percent" in _validated(tmp_path)


@pytest.mark.parametrize("place", _COMMITTED)
def test_what_is_committed_is_what_the_template_gives(canary: Canary, place: Any) -> None:
    folder = _COMMITTED[place]
    assert {path.name: path.read_text() for path in folder.iterdir()} == render(place(canary))


def test_the_command_writes_what_is_committed(tmp_path: Path) -> None:
    from typer import Typer  # noqa: PLC0415 - for this test

    from radserve_server.gateway_commands import gateway  # noqa: PLC0415 - likewise

    app = Typer()
    app.command()(gateway)
    arguments = ["compose", "--output", str(tmp_path), "--repository", str(ROOT / "model_repository")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    folder = _COMMITTED[compose]
    assert all((tmp_path / path.name).read_text() == path.read_text() for path in folder.iterdir())


def test_the_command_bounds_what_is_let_in(tmp_path: Path) -> None:
    from typer import Typer  # noqa: PLC0415 - for this test

    from radserve_server.gateway_commands import gateway  # noqa: PLC0415 - likewise

    app = Typer()
    app.command()(gateway)
    arguments = ["compose", "--output", str(tmp_path), "--repository", str(ROOT / "model_repository")]
    assert CliRunner().invoke(app, [*arguments, "--max-requests", "7"]).exit_code == 0
    clusters = yaml.safe_load((tmp_path / "envoy.yaml").read_text())["static_resources"]["clusters"]
    (triton,) = (cluster for cluster in clusters if cluster["name"] == "triton")
    assert triton["circuit_breakers"]["thresholds"][0]["max_requests"] == 7


def _manager(canary: Canary, **settings: Any) -> dict[str, Any]:
    rendered = yaml.safe_load(render(replace(compose(canary), **settings))["envoy.yaml"])
    manager: dict[str, Any] = rendered["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    return dict(manager["typed_config"])


def test_nothing_is_retried_that_a_replica_may_have_begun(canary: Canary) -> None:
    (host,) = _manager(canary)["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        policy = route["route"]["retry_policy"]
        conditions = {"connect-failure", "refused-stream", "reset-before-request", "retriable-headers"}
        assert set(policy["retry_on"].split(",")) == conditions
        assert [one["name"] for one in policy["retriable_headers"]] == ["grpc-status", "grpc-message", "grpc-message"]
        assert policy["num_retries"] == 2


@pytest.mark.parametrize("way", ["certificates", "tokens", "both"])
def test_clients_are_known_before_they_are_counted_and_let_through(canary: Canary, way: str) -> None:
    names = [one["name"].rpartition(".")[2] for one in _manager(canary, **_WAYS[way])["http_filters"]]
    tokens = ["jwt_authn"] if "tokens" in _WAYS[way] else []
    assert names == ["grpc_stats", "header_mutation", *tokens, "local_ratelimit", "rbac", "buffer", "router"]


def test_where_nobody_is_an_operator_nobody_reads_the_index(canary: Canary) -> None:
    rbac = next(one for one in _manager(canary, operators=())["http_filters"] if one["name"].endswith("rbac"))
    assert rbac["typed_config"]["rules"]["policies"]["operators"]["principals"] == [{"not_id": {"any": True}}]


def test_a_gateway_asks_who_comes(canary: Canary) -> None:
    with pytest.raises(InputError, match="asks nobody"):
        replace(compose(canary), mutual_tls=False)
    with pytest.raises(InputError, match="at least one replica"):
        replace(compose(canary), replicas=())


def test_the_canary_is_small_urgent_and_of_no_version(canary: Canary) -> None:
    request = service_pb2.ModelInferRequest.FromString(canary.request)
    assert (request.model_name, request.model_version) == ("report_triage", "")
    assert request.parameters["priority"].uint64_param == 1
    answer = service_pb2.ModelInferResponse(model_name="report_triage").SerializeToString()
    assert answer.startswith(canary.answer)


def test_a_canary_may_be_of_any_model_whose_input_is_small() -> None:
    for name in ("chest_xray", "ecg_rhythm"):
        request = service_pb2.ModelInferRequest.FromString(canary_of(ROOT / "model_repository", name).request)
        assert request.model_name == name
    with pytest.raises(RepositoryError, match="no public model absent"):
        canary_of(ROOT / "model_repository", "absent")


def test_a_text_model_is_asked_before_a_smaller_one_whose_inputs_may_change() -> None:
    small = tensors(inputs=(TensorSpec(name="X", dtype=Datatype.UINT8, dims=(1,)),), name="x")
    first, only = canary_among([small, contract(TEXT)]), canary_among([small])
    assert first is not None
    assert only is not None
    assert len(only.request) < len(first.request)
    assert [(one.model, one.lasts) for one in (first, only)] == [("demo", True), ("x", False)]


@pytest.mark.parametrize(("options", "warned"), [([], False), (["--canary", "chest_xray"], True)])
def test_the_command_says_which_releases_its_canary_ends_with(
    tmp_path: Path, options: list[str], *, warned: bool
) -> None:
    from typer import Typer  # noqa: PLC0415 - for this test

    from radserve_server.gateway_commands import gateway  # noqa: PLC0415 - likewise

    app = Typer()
    app.command()(gateway)
    arguments = ["compose", "--output", str(tmp_path), "--repository", str(ROOT / "model_repository"), *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert ("the canary asks chest_xray: render the gateway anew" in done.output) is warned


def test_blocks_and_values_of_a_template() -> None:
    template = "# ${kept}\na: ${text}\n#? yes\nb: 1\n  #? not yes\nc: 2\n#? end\nd: 3\n#? end\n#? no\ne: 4\n#? end\n"
    assert fill(template, {"text": '"', "yes": "x", "no": None}) == '# ${kept}\na: "\\""\nb: 1\nd: 3\n'


@pytest.mark.parametrize("template", ["#? yes\n", "#? end\n", "#? end\n#? yes\n"])
def test_a_block_without_an_end_or_a_beginning_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="no end, or no beginning"):
        fill(template, {"yes": True})
