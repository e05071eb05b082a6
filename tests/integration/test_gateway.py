"""The rendered gateway, run: the real Envoy in front of two real Tritons."""

from __future__ import annotations

import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.deployment import objects, rendered, run
from support.echo import answers, furnished, two_replicas
from support.envoys import RunningEnvoy, envoy, place, tls, token, unsigned, write_issuer
from support.faulty import NUMBERS, SECRET, note, x
from support.figures import tell, timed
from support.servers import wait_until, write_certificate

from radserve import (
    Client,
    DeadlineExceededError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.options import ClientOptions, Secret
from radserve_server.gateway import Tokens, canary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from radserve_server import EmbeddedServer

_MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def replicas(folder: Path) -> Iterator[list[EmbeddedServer]]:
    with two_replicas(folder) as running:
        yield running


@pytest.fixture(scope="module")
def behind(folder: Path, replicas: list[EmbeddedServer]) -> Callable[..., AbstractContextManager[RunningEnvoy]]:
    """A function that starts a gateway of both replicas, with further settings."""
    return partial(envoy, folder, [one.grpc_url for one in replicas], canary_of(folder / "models", "echo"))


@pytest.fixture(scope="module")
def gateway(behind: Callable[..., AbstractContextManager[RunningEnvoy]]) -> Iterator[RunningEnvoy]:
    with behind(max_request_bytes=_MIB) as running:
        yield running


def _executions(server: EmbeddedServer) -> int:
    with triton.InferenceServerClient(server.grpc_url) as client:
        return int(client.get_inference_statistics("echo").model_stats[0].inference_stats.success.count)


def test_inferences_pass_and_are_spread_over_the_replicas(
    gateway: RunningEnvoy, folder: Path, replicas: list[EmbeddedServer]
) -> None:
    before = [_executions(one) for one in replicas]
    answers(gateway, folder, count=40)
    assert all(_executions(one) > old + 5 for one, old in zip(replicas, before, strict=True))


def _triton(gateway: RunningEnvoy, folder: Path, name: str) -> triton.InferenceServerClient:
    files = {"root_certificates": "ca.pem", "private_key": f"{name}.key", "certificate_chain": f"{name}.pem"}
    options: Any = {option: str(folder / file) for option, file in files.items()}
    return triton.InferenceServerClient(gateway.url, ssl=True, **options)


_OPERATORS = {
    "RepositoryIndex": lambda client: client.get_model_repository_index(),
    "ModelStatistics": lambda client: client.get_inference_statistics("echo"),
}
_NOBODYS = {
    "RepositoryModelLoad": lambda client: client.load_model("echo"),
    "RepositoryModelUnload": lambda client: client.unload_model("echo"),
    "SystemSharedMemoryRegister": lambda client: client.register_system_shared_memory("a", "/a", 64),
    "SystemSharedMemoryStatus": lambda client: client.get_system_shared_memory_status(),
    "CudaSharedMemoryRegister": lambda client: client.register_cuda_shared_memory("a", b"", 0, 64),
    "TraceSetting": lambda client: client.get_trace_settings(),
    "LogSettings": lambda client: client.update_log_settings({"log_verbose_level": 1}),
}


@pytest.mark.parametrize("name", ["client", "radserve-operator"])
@pytest.mark.parametrize("method", _NOBODYS)
def test_what_changes_a_server_is_refused_to_all(gateway: RunningEnvoy, folder: Path, method: str, name: str) -> None:
    with _triton(gateway, folder, name) as client, pytest.raises(triton.InferenceServerException) as refused:
        _NOBODYS[method](client)
    assert refused.value.status() == "StatusCode.PERMISSION_DENIED"


@pytest.mark.parametrize("method", _OPERATORS)
def test_index_and_statistics_are_the_operators(gateway: RunningEnvoy, folder: Path, method: str) -> None:
    with _triton(gateway, folder, "radserve-operator") as client:
        assert _OPERATORS[method](client)
    with _triton(gateway, folder, "client") as client, pytest.raises(triton.InferenceServerException) as refused:
        _OPERATORS[method](client)
    assert refused.value.status() == "StatusCode.PERMISSION_DENIED"


def test_health_and_metadata_are_everybodys(gateway: RunningEnvoy, folder: Path) -> None:
    with _triton(gateway, folder, "client") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo")
        assert client.get_server_metadata().name == "triton"
        assert client.get_model_metadata("echo").name == "echo"
        assert client.get_model_config("echo").config.name == "echo"


@pytest.mark.parametrize("name", [None, "stranger", "expired"])
def test_no_wrong_or_expired_certificates_are_refused(gateway: RunningEnvoy, folder: Path, name: str | None) -> None:
    with Client(gateway.url, tls=tls(folder, name)) as client, pytest.raises(ServerUnavailableError):
        client.model("echo")
    answers(gateway, folder)


def test_plain_text_is_refused(gateway: RunningEnvoy) -> None:
    with Client(gateway.url, insecure=True) as client, pytest.raises(ServerUnavailableError):
        client.model("echo")


def test_of_envoys_administration_statistics_and_readiness_alone_are_let_out(gateway: RunningEnvoy) -> None:
    assert gateway.read("/ready")
    assert gateway.read("/stats/prometheus")
    assert [path for path in ("/", "/config_dump", "/certs", "/clusters", "/stats") if gateway.read(path)] == []


def test_a_message_that_is_too_large_is_refused(gateway: RunningEnvoy, folder: Path) -> None:
    with Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("echo")
        assert model.infer({"X": np.zeros((1, _MIB // 8), np.float32)})
        with pytest.raises(RequestRejectedError) as refused:
            model.infer({"X": np.zeros((1, 2 * _MIB), np.float32)})
    assert refused.value.code == "RESOURCE_EXHAUSTED"


def test_the_callers_deadline_holds(gateway: RunningEnvoy, folder: Path) -> None:
    with Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("faulty")
        number = next(NUMBERS)
        with timed("ended_after_s"), pytest.raises(DeadlineExceededError):
            model.infer(x(held=number), timeout_s=1)
        note(folder / "models", "let_go", number).touch()


def test_no_answer_takes_longer_than_the_longest_deadline(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    number = next(NUMBERS)
    with behind(max_deadline_s=1) as gateway, Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("faulty")
        try:
            begin = time.monotonic()
            with pytest.raises(DeadlineExceededError):
                model.infer(x(held=number), timeout_s=60)
            assert time.monotonic() - begin < 30
        finally:
            note(folder / "models", "let_go", number).touch()


def test_wrong_inputs_eject_nobody(gateway: RunningEnvoy, folder: Path) -> None:
    with Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("faulty")
        for options in [{"error": 1.0}, {"raises": 1.0}]:
            for _ in range(20):
                with pytest.raises(ServerError):
                    model.infer(x(**options))
    assert _ejections(gateway) == 0


def _ejections(gateway: RunningEnvoy) -> float:
    """Also those that the cap prevented."""
    names = ("enforced_total", "overflow", "detected_consecutive_gateway_failure")
    return sum(gateway.statistic(f"outlier_detection_ejections_{name}") for name in names)


def test_full_queues_are_told_as_such_and_eject_nobody(gateway: RunningEnvoy, folder: Path) -> None:
    numbers = [next(NUMBERS) for _ in range(6)]  # of each replica one, and two in its queue

    def is_refused() -> bool:
        try:
            model.infer(x(), timeout_s=0.3)
        except ServerOverloadedError as error:
            return error.code == "RESOURCE_EXHAUSTED"
        except DeadlineExceededError:
            return False
        return False

    with Client(gateway.url, tls=tls(folder, "client")) as client, ThreadPoolExecutor(len(numbers)) as pool:
        model = client.model("faulty")
        for number in numbers:
            pool.submit(model.infer, x(held=number), timeout_s=60)
        try:
            assert wait_until(is_refused)
            refused = sum(is_refused() for _ in range(30))
            tell(refused=refused, asked=30)
            assert refused > 20
        finally:
            for number in numbers:
                note(folder / "models", "let_go", number).touch()
    assert _ejections(gateway) == 0


def test_the_log_holds_neither_payload_nor_what_the_server_said(gateway: RunningEnvoy, folder: Path) -> None:
    with Client(gateway.url, tls=tls(folder, "client")) as client, pytest.raises(ServerError):
        client.model("faulty").infer(x(error=1))
    assert wait_until(lambda: "INVALID_ARGUMENT" in gateway.log.read_text())
    text = gateway.log.read_text()
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    fields = {"time", "method", "code", "flags", "duration_ms", "received_bytes", "sent_bytes", "replica", "attempts"}
    assert all(line.keys() == fields | {"certificate_sha256"} for line in lines)


def test_one_clients_rate_is_limited_and_no_others(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    with behind(burst=5, requests_per_s=1) as gateway, Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("echo")

        def ask_on() -> None:
            for _ in range(60):
                model.infer({"X": np.zeros((1, 4), np.float32)})

        with pytest.raises(ServerOverloadedError) as refused:
            ask_on()
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        answers(gateway, folder, "another")


def test_a_client_cannot_pass_for_another(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    with behind(burst=5, requests_per_s=1) as gateway, _triton(gateway, folder, "client") as client:

        def ask_on() -> None:
            for number in range(60):
                client.is_server_live(headers={"x-radserve-client": str(number)})

        with pytest.raises(triton.InferenceServerException) as refused:
            ask_on()
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_only_valid_tokens_pass(behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=str(write_issuer(folder)))
    wrong = [
        None,
        "garbage",
        token(folder, "other-ca"),
        unsigned(token(folder)),
        token(folder, exp=int(time.time()) - 600),
        token(folder, exp=None),
        token(folder, aud="pacs"),
        token(folder, iss="elsewhere"),
    ]
    with behind(tokens=tokens, mutual_tls=False) as gateway:
        for one in wrong:
            with _asking(gateway, folder, one) as client, pytest.raises(UnauthenticatedError):
                client.model("echo")
        with _asking(gateway, folder, token(folder)) as client:
            assert client.model("echo").infer({"X": np.zeros((1, 4), np.float32)})
            with pytest.raises(UnauthenticatedError, match=r"to list models .* an operator's"):
                client.models()
        with _asking(gateway, folder, token(folder, roles=["radserve-operator"])) as client:
            assert client.models()


def test_of_tokens_each_subject_has_its_own_rate(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=str(write_issuer(folder)))
    with behind(tokens=tokens, mutual_tls=False, burst=5, requests_per_s=1) as gateway:
        with _asking(gateway, folder, token(folder, sub="ris")) as client:

            def ask_on() -> None:
                for _ in range(60):
                    client.model("echo")

            with pytest.raises(ServerOverloadedError):
                ask_on()
        with _asking(gateway, folder, token(folder, sub="pacs")) as client:
            assert client.model("echo")


def _asking(gateway: RunningEnvoy, folder: Path, shown: str | None) -> Client:
    given = Secret.from_environment("TOKEN", {"TOKEN": shown}) if shown else None
    return Client(options=ClientOptions(endpoints=(gateway.url,), tls=tls(folder, None), token=given))


def test_a_renewed_certificate_is_taken_up_without_a_restart(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    with behind() as gateway:
        assert _shown(gateway) == _certificate(folder, "gateway")
        write_certificate(folder, "renewed", "ca")
        place(folder, "renewed")
        assert wait_until(lambda: _shown(gateway) == _certificate(folder, "renewed"))
        answers(gateway, folder)


def _shown(gateway: RunningEnvoy) -> str:
    host, port = gateway.url.split(":")
    return ssl.get_server_certificate((host, int(port))).strip()


def _certificate(folder: Path, name: str) -> str:
    return (folder / f"{name}.pem").read_text().strip()


def test_a_leaving_gateway_answers_on_and_sends_its_clients_elsewhere(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    pod = objects(rendered("overlays/cpu"))["Deployment", "envoy"]["spec"]["template"]["spec"]
    *shell, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    with behind() as gateway, Client(gateway.url, tls=tls(folder, "client")) as client:
        model = client.model("echo")
        changed = script.replace("/9901", f"/{gateway.admin_port}").replace("sleep 35", "true")
        assert "200 OK" in run(*shell, changed).stdout
        for _ in range(10):
            assert model.infer({"X": np.zeros((1, 4), np.float32)})
        closed = 'envoy_http_downstream_cx_drain_close{envoy_http_conn_manager_prefix="gateway"} 0'
        assert closed not in gateway.read("/stats/prometheus")
