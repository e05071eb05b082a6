"""Inputs through shared memory, on a real Triton: what travels, what is left, what is never written too early."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.proxies import Proxy
from support.repositories import write_python
from support.servers import raw_server, wait_until
from tritonclient import grpc as triton

from radserve import _codec
from radserve._codec._flow import Infer
from radserve._transport import SyncTransport, _shared_memory
from radserve.errors import (
    ClientClosedError,
    DeadlineExceededError,
    InputError,
    RequestRejectedError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.options import ClientOptions, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve.contracts import Contract

SIZE = 2**18
# X[0] numbers a request that waits to be let go.
STEP = """
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = args["model_repository"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = request.inputs()[0].as_numpy()
        if x[0, 0]:
            open(os.path.join(self.folder, f"busy_{x[0, 0]:.0f}"), "w").close()
            while not os.path.exists(os.path.join(self.folder, f"let_go_{x[0, 0]:.0f}")):
                time.sleep(0.01)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x.sum(axis=1, keepdims=True))])
"""
NUMBERS = itertools.count(1)
FILES = Path("/dev/shm")  # noqa: S108 - what is looked at
CHILD = """
import sys
import numpy as np
from radserve import _codec
from radserve._codec._flow import Infer, ReadConfig
from radserve._transport import SyncTransport
from radserve.options import ClientOptions

transport = SyncTransport(ClientOptions(endpoints=(sys.argv[1],), shared_memory=True))
contract = _codec.read_contract(transport.call(ReadConfig(model="sums"), timeout_s=30).message)
x = np.zeros((1, contract.inputs[0].dims[0]), np.float32)
for held in (0, float(sys.argv[2])):
    x[0, 0] = held
    transport.call(Infer(request=_codec.to_request(contract, {"X": x}, request_id="r")), timeout_s=60)
print("idle", flush=True)
sys.stdin.read()
"""


def write_sums(repository: Path) -> Contract:
    return write_python(repository, "sums", STEP, (("X", "FP32", (SIZE,)),), (("Y", "FP32", (1,)),))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Contract]]:
    repository = tmp_path_factory.mktemp("repository")
    contract = write_sums(repository)
    with raw_server(repository) as (_, url):
        yield url, repository / "sums_step", contract


@pytest.fixture
def open_transport() -> Iterator[Callable[..., SyncTransport]]:
    """A function that makes a transport with shared memory; it is closed after the test."""
    with ExitStack() as stack:

        def make(url: str, **options: object) -> SyncTransport:
            given = ClientOptions(endpoints=(url,), shared_memory=True, **options)  # type: ignore[arg-type]
            return stack.enter_context(closing(SyncTransport(given)))

        yield make


def infer(transport: SyncTransport, contract: Contract, value: float, *, held: int = 0, timeout_s: float = 30) -> float:
    """The sum of a request's elements: all of one value but the first, which holds it."""
    x = np.full((1, SIZE), value, np.float32)
    x[0, 0] = held
    request = _codec.to_request(contract, {"X": x}, request_id="r")
    reply = transport.call(Infer(request=request), timeout_s=timeout_s)
    answer = _codec.to_answer(contract, reply.message, batch_size=1, request_id="r")
    return float(answer.arrays["Y"][0, 0])


def known(url: str) -> set[str]:
    """The regions that a server has mapped."""
    with triton.InferenceServerClient(url) as client:
        return set(client.get_system_shared_memory_status().regions)


def files() -> set[str]:
    return {path.name for path in FILES.glob(f"radserve-*-{os.getpid()}-*")}


def test_inputs_do_not_cross_the_connection_and_no_file_is_left(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport]
) -> None:
    url, _, contract = served
    with Proxy(url) as proxy:
        transport = open_transport(proxy.url)
        for value in (1, 2, 3):
            assert infer(transport, contract, value) == value * (SIZE - 1)
        assert len(known(url)) == 1  # used again
        assert not files()
        transport.close()
        assert len(proxy.bytes_to_server) < 4 * SIZE / 100
        assert not known(url)


def test_callers_at_the_same_time_never_read_each_others_inputs(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport]
) -> None:
    url, _, contract = served
    transport = open_transport(url)
    wrong: list[float] = []

    def call(value: int) -> None:
        wrong.extend(value for _ in range(20) if infer(transport, contract, value) != value * (SIZE - 1))

    threads = [threading.Thread(target=call, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(known(url)) <= 4


def test_a_region_that_may_still_be_read_is_not_written_again(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport]
) -> None:
    url, folder, contract = served
    transport = open_transport(url)
    number = next(NUMBERS)
    holder = threading.Thread(target=infer, args=(transport, contract, 0), kwargs={"held": number})
    holder.start()
    try:
        assert wait_until((folder / f"busy_{number}").exists)
        (at_work,) = known(url)
        for late in (1, 2):
            with pytest.raises(DeadlineExceededError):
                infer(transport, contract, late, timeout_s=0.3)
            assert at_work in known(url)
        assert len(known(url)) >= 2
    finally:
        (folder / f"let_go_{number}").touch()
        holder.join()
    assert infer(transport, contract, 5) == 5 * (SIZE - 1)
    assert wait_until(lambda: infer(transport, contract, 5) > 0 and len(known(url)) == 1)


@pytest.mark.parametrize("when", ["idle", "in mid-request"])
def test_a_killed_client_leaves_nothing(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport], when: str
) -> None:
    url, folder, contract = served
    number, is_held = next(NUMBERS), when == "in mid-request"
    command = [sys.executable, "-c", CHILD, url, str(number if is_held else 0)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603
        assert child.stdout
        if is_held:
            assert wait_until((folder / f"busy_{number}").exists)
        else:
            assert child.stdout.readline() == "idle\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not list(FILES.glob(f"radserve-*-{child.pid}-*"))
    assert any(f"-{child.pid}-" in name for name in known(url))
    (folder / f"let_go_{number}").touch()

    def is_clean() -> bool:
        transport = open_transport(url)
        assert infer(transport, contract, 1) == SIZE - 1
        transport.close()
        return not known(url)

    assert wait_until(is_clean)


def test_a_file_that_a_killed_client_left_is_removed(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport]
) -> None:
    url, _, contract = served
    region = _shared_memory._create(2**16)
    parts = region.name.split("-")
    with subprocess.Popen([sys.executable, "-c", ""]) as child:  # a process that is gone
        child.wait()
    orphan = "-".join([*parts[:3], str(child.pid), "1", "0"])
    elsewhere = "-".join([*parts[:2], "1", str(child.pid), "1", "0"])  # of another container: nobody to tell
    (FILES / region.name).rename(FILES / orphan)
    (FILES / elsewhere).touch()
    try:
        assert infer(open_transport(url), contract, 1) == SIZE - 1
        assert not (FILES / orphan).exists()
        assert (FILES / elsewhere).exists()
    finally:
        (FILES / elsewhere).unlink()
        region.memory.close()


def test_a_server_that_was_started_anew_is_given_new_regions(
    tmp_path: Path, open_transport: Callable[..., SyncTransport]
) -> None:
    contract = write_sums(tmp_path)
    with raw_server(tmp_path) as (_, first), Proxy(first) as proxy:
        transport = open_transport(proxy.url)
        assert infer(transport, contract, 1) == SIZE - 1
        with raw_server(tmp_path) as (_, second):
            proxy.target = second
            proxy.reset()
            assert wait_until(lambda: _answers(transport, contract))
            assert len(known(second)) == 1
            transport.close()


def _answers(transport: SyncTransport, contract: Contract) -> bool:
    try:
        return infer(transport, contract, 2) == 2 * (SIZE - 1)
    except RequestRejectedError:
        raise
    except Exception as error:  # noqa: BLE001 - the connection is being made again
        return error is None


@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("was_used", [True, False], ids=["used", "new"])
def test_while_a_server_is_away_regions_do_not_pile_up(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport], how: str, *, was_used: bool
) -> None:
    url, _, contract = served
    callers = 4

    def call(_: int) -> None:
        with pytest.raises((ServerUnavailableError, DeadlineExceededError)):
            infer(transport, contract, 2, timeout_s=5 if how == "cut" else 0.1)

    with Proxy(url) as proxy:
        transport = open_transport(proxy.url)
        if was_used:
            assert infer(transport, contract, 1) == SIZE - 1
        getattr(proxy, how)()
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(call, range(10 * callers)))
        assert len(transport._core._shared[proxy.url].regions()) <= 2 * callers
        assert not files()
        (proxy.mend if how == "cut" else proxy.resume)()
        assert wait_until(lambda: _answers(transport, contract) and len(known(url)) == 1)
        transport.close()
        assert not known(url)


def test_without_room_inputs_go_over_the_connection(
    served: tuple[str, Path, Contract],
    open_transport: Callable[..., SyncTransport],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, _, contract = served

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    transport = open_transport(url)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        assert infer(transport, contract, 3) == 3 * (SIZE - 1)
    assert not known(url)
    assert not files()
    assert "No space left" in caplog.text
    assert infer(transport, contract, 4) == 4 * (SIZE - 1)
    assert len(known(url)) == 1


def test_a_server_that_sees_other_memory_is_told(
    served: tuple[str, Path, Contract],
    open_transport: Callable[..., SyncTransport],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url, _, contract = served
    monkeypatch.setattr(_shared_memory, "_FOLDER", tmp_path)
    with pytest.raises(RequestRejectedError, match="leave shared_memory out"):
        infer(open_transport(url), contract, 1)
    assert not list(tmp_path.iterdir())


def test_a_server_that_restricts_shared_memory_wants_its_key(
    tmp_path: Path, open_transport: Callable[..., SyncTransport]
) -> None:
    contract = write_sums(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("ours")
    with raw_server(tmp_path, "--grpc-restricted-protocol=shared-memory:key=ours") as (_, url):
        with pytest.raises(UnauthenticatedError):
            infer(open_transport(url), contract, 1)
        keyed = open_transport(url, protocol_key="key", protocol_secret=Secret.from_file(secret))
        assert infer(keyed, contract, 1) == SIZE - 1


def test_a_call_that_is_closed_in_flight_gives_its_region_to_the_next_client(
    served: tuple[str, Path, Contract], open_transport: Callable[..., SyncTransport]
) -> None:
    url, folder, contract = served
    number = next(NUMBERS)
    transport = open_transport(url)
    ended: list[type] = []

    def call() -> None:
        try:
            infer(transport, contract, 0, held=number)
        except ClientClosedError as error:
            ended.append(type(error))

    holder = threading.Thread(target=call)
    holder.start()
    assert wait_until((folder / f"busy_{number}").exists)
    transport.close()
    holder.join()
    (folder / f"let_go_{number}").touch()
    assert ended == [ClientClosedError]

    def is_clean() -> bool:
        again = open_transport(url)
        infer(again, contract, 1)
        again.close()
        return not known(url)

    assert wait_until(is_clean)


def test_another_host_has_no_shared_memory() -> None:
    with pytest.raises(InputError, match="this host"):
        SyncTransport(ClientOptions(endpoints=("triton.example.org:8001",), insecure=True, shared_memory=True))
