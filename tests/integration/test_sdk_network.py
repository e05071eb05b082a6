"""What callers see while servers and networks fail: real Tritons, a real proxy between, and one budget of time."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.faulty import NUMBERS, held, note, write_faulty, x
from support.figures import timed
from support.proxies import Proxy
from support.repositories import write_add_one, write_python
from support.servers import raw_server, wait_until

from radserve import (
    Client,
    DeadlineExceededError,
    InferenceFailedError,
    Model,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from radserve.errors import Retry
from radserve.options import ClientOptions, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from radserve_server.process import ServerProcess

LARGE = 2**18
COUNTING = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.path = os.path.join(args["model_repository"], "calls")

    def execute(self, requests):
        with open(self.path, "a") as calls:
            calls.write("x" * len(requests))
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy().sum(1, keepdims=True))])
            for request in requests
        ]
"""
WIDE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        y = np.zeros((1, 2**15), np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", y)]) for _ in requests]
"""


class Server:
    """A Triton with a repository of its own, reached through a proxy.

    Attributes:
        repository: Its models: add_one, faulty, large and wide.
        process: It.
        proxy: In front of it.
    """

    def __init__(self, repository: Path, process: ServerProcess, proxy: Proxy) -> None:
        self.repository, self.process, self.proxy = repository, process, proxy
        self.url = proxy.url

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    @property
    def sent(self) -> int:
        return len(self.proxy.bytes_to_server)


@contextmanager
def started(folder: Path, *, lasts: bool, count: int = 2) -> Iterator[list[tuple[Path, ServerProcess, str]]]:
    """Servers, each of a repository of its own."""
    repositories = [folder / str(number) for number in range(count)]
    for repository in repositories:
        write_add_one(repository)
        write_faulty(repository)
        if lasts:
            write_python(repository, "wide", WIDE, outputs=(("Y", "FP32", (2**15,)),))
            write_python(repository, "large", COUNTING, (("X", "FP32", (LARGE,)),), (("Y", "FP32", (1,)),))
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        running = list(pool.map(stack.enter_context, map(raw_server, repositories)))
        yield [(repository, *server) for repository, server in zip(repositories, running, strict=True)]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Path, ServerProcess, str]]]:
    """Two servers for tests that leave them as they were."""
    with started(tmp_path_factory.mktemp("repositories"), lasts=True) as servers:
        yield servers


@pytest.fixture
def two(lasting: list[tuple[Path, ServerProcess, str]]) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [Server(folder, process, stack.enter_context(Proxy(url))) for folder, process, url in lasting]


@pytest.fixture
def one(two: list[Server]) -> Server:
    return two[0]


@pytest.fixture
def doomed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    """Two servers, or as many as asked for, for tests that end them: without the models wide and large."""
    with started(tmp_path, lasts=False, count=getattr(request, "param", 2)) as servers, ExitStack() as stack:
        yield [Server(folder, process, stack.enter_context(Proxy(url))) for folder, process, url in servers]


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """A function that makes a client of servers; it is closed after the test."""
    with ExitStack() as stack:

        def make(*servers: Server, **options: Any) -> Client:
            given = ClientOptions(endpoints=tuple(server.url for server in servers), **options)
            return stack.enter_context(Client(options=given))

        yield make


def answers(model: Model[Any], **options: Any) -> bool:
    return bool(model.infer(x(), **options)["Y"].tolist() == [[1, 1, 1, 1]])


def test_calls_are_spread_over_the_servers(two: list[Server], connect: Callable[..., Client]) -> None:
    model = connect(*two).model("add_one")
    assert all(answers(model) for _ in range(40))
    sent = [server.sent for server in two]
    assert min(sent) > 0.4 * max(sent)


def test_a_server_with_calls_in_flight_is_given_fewer(two: list[Server], connect: Callable[..., Client]) -> None:
    client = connect(*two)
    model = client.model("faulty")
    with ThreadPoolExecutor(1) as pool:
        number = next(NUMBERS)
        call = pool.submit(model.infer, x(held=number), timeout_s=60)
        assert wait_until(lambda: any(note(server.repository, "busy", number).exists() for server in two))
        (busy,) = (server for server in two if note(server.repository, "busy", number).exists())
        (idle,) = (server for server in two if server is not busy)
        before = busy.sent, idle.sent
        assert all(answers(client.model("add_one")) for _ in range(5))
        assert idle.sent - before[1] > 10 * (busy.sent - before[0])
        note(busy.repository, "let_go", number).touch()
        assert call.result()["Y"][0, 0] == number + 1


def test_a_killed_server_costs_no_answer(doomed: list[Server], connect: Callable[..., Client]) -> None:
    model = connect(*doomed).model("add_one")
    with ThreadPoolExecutor(4) as pool:
        before = [pool.submit(answers, model) for _ in range(40)]
        doomed[0].signal(signal.SIGKILL)
        after = [pool.submit(answers, model) for _ in range(40)]
        assert all(call.result() for call in before + after)


def test_a_call_on_a_server_that_is_killed_is_answered_by_another(
    doomed: list[Server], connect: Callable[..., Client]
) -> None:
    model = connect(*doomed).model("faulty")
    number = next(NUMBERS)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.infer, x(held=number), timeout_s=60)
        assert wait_until(lambda: any(note(server.repository, "busy", number).exists() for server in doomed))
        (busy,) = (server for server in doomed if note(server.repository, "busy", number).exists())
        (other,) = (server for server in doomed if server is not busy)
        note(other.repository, "let_go", number).touch()
        busy.signal(signal.SIGKILL)
        assert call.result()["Y"][0, 0] == number + 1


@pytest.mark.parametrize("doomed", [3], indirect=True)
def test_a_request_that_kills_servers_does_not_walk_through_all_of_them(
    doomed: list[Server], connect: Callable[..., Client]
) -> None:
    model = connect(*doomed, retry=RetryPolicy(attempts=5)).model("faulty")
    number = next(NUMBERS)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.infer, x(held=number), timeout_s=60)

        def asked() -> list[Server]:
            return [server for server in doomed if note(server.repository, "busy", number).exists()]

        for _ in range(2):
            assert wait_until(lambda: bool(asked()) or call.done())
            (busy,) = asked()
            busy.signal(signal.SIGKILL)
            doomed.remove(busy)
        assert wait_until(lambda: bool(asked()) or call.done())
        for server in doomed:
            note(server.repository, "let_go", number).touch()
        assert not asked()
        with pytest.raises(ServerUnavailableError):
            call.result()


def test_a_model_whose_process_died_is_told_and_asked_elsewhere(
    doomed: list[Server], connect: Callable[..., Client]
) -> None:
    dead = doomed[0]
    alone = connect(dead, retry=RetryPolicy(attempts=1)).model("faulty")
    with pytest.raises(ServerError):
        alone.infer(x(raises=2))
    with pytest.raises(InferenceFailedError, match="has died") as caught:
        alone.infer(x())
    assert caught.value.retry is Retry.ONCE_ELSEWHERE
    model = connect(*doomed).model("faulty")
    assert all(answers(model) for _ in range(6))


def test_a_stopped_server_costs_time_but_no_answer(doomed: list[Server], connect: Callable[..., Client]) -> None:
    model = connect(*doomed).model("add_one")
    stopped = doomed[0]
    assert all(answers(model) for _ in range(4))
    stopped.signal(signal.SIGSTOP)
    try:
        with timed("ten_answers_after_s"):
            assert all(answers(model, timeout_s=3) for _ in range(10))
        before = stopped.sent
        assert all(answers(model, timeout_s=3) for _ in range(10))
        assert stopped.sent - before < 1000  # asked whether it is ready, at most
    finally:
        stopped.signal(signal.SIGCONT)
    before = stopped.sent
    assert wait_until(lambda: answers(model) and stopped.sent > before + 2000)


def test_servers_that_shut_down_under_load_lose_no_call(doomed: list[Server], connect: Callable[..., Client]) -> None:
    model, leaving = connect(*doomed).model("add_one"), doomed[0]
    failures: list[BaseException] = []
    has_ended = threading.Event()

    def call() -> None:
        try:
            while not has_ended.is_set():
                assert answers(model)
            assert all(answers(model) for _ in range(20))
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    leaving.signal(signal.SIGTERM)
    assert leaving.process.ended.wait(60)
    has_ended.set()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("wanted", ["by default", "if asked for"])
def test_a_full_queue_is_tried_elsewhere_only_if_asked_for(
    two: list[Server], connect: Callable[..., Client], wanted: str
) -> None:
    full, retries = two[0], wanted == "if asked for"
    loading = connect(full, retry=RetryPolicy(attempts=1)).model("faulty")
    model = connect(*two, retry=RetryPolicy(retry_overload=retries)).model("faulty")
    with ThreadPoolExecutor(6) as pool, held(loading, full.repository):
        filling = [pool.submit(was_answered, loading, timeout_s=60) for _ in range(6)]
        assert wait_until(lambda: any(call.done() for call in filling))
        outcomes = [was_answered(model) for _ in range(4)]
        assert any(outcomes)
        assert all(outcomes) is retries


def was_answered(model: Model[Any], **options: Any) -> bool:
    """Whether a call was answered, and not refused by a full queue."""
    try:
        return answers(model, **options)
    except ServerOverloadedError:
        return False


def test_a_stalled_network_keeps_the_deadline(one: Server, connect: Callable[..., Client]) -> None:
    model = connect(one).model("add_one")
    one.proxy.stall()
    with timed("ended_after_s"), pytest.raises(DeadlineExceededError):
        model.infer(x(), timeout_s=0.3)
    one.proxy.resume()
    assert answers(model)


def test_a_connection_reset_in_the_body_is_made_again_with_one_result(
    one: Server, connect: Callable[..., Client]
) -> None:
    model = connect(one).model("large")
    calls = one.repository / "large_step" / "calls"
    before = len(calls.read_text()) if calls.exists() else 0
    one.proxy.reset_after = LARGE
    answer = model.infer({"X": np.ones((1, LARGE), np.float32)})
    assert answer["Y"].tolist() == [[LARGE]]
    assert one.proxy.reset_after is None
    assert one.proxy.connections == 2
    assert len(calls.read_text()) - before == 1


def test_a_network_that_was_cut_is_found_again(one: Server, connect: Callable[..., Client]) -> None:
    model = connect(one, retry=RetryPolicy(attempts=2)).model("add_one")
    one.proxy.cut()
    with pytest.raises(ServerUnavailableError) as caught:
        model.infer(x(), timeout_s=20)
    assert caught.value.endpoint == one.url
    one.proxy.mend()

    def is_found() -> bool:
        try:
            return answers(model)
        except ServerUnavailableError:
            return False

    assert wait_until(is_found)


def test_a_network_that_comes_back_in_time_costs_no_answer(one: Server, connect: Callable[..., Client]) -> None:
    patient = RetryPolicy(attempts=1000, longest_backoff_s=0.2)
    model = connect(one, retry=patient).model("add_one")
    one.proxy.cut()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(answers, model)
        with pytest.raises(TimeoutError):
            call.result(0.3)
        one.proxy.mend()
        assert call.result()


def test_an_answer_too_large_says_what_to_do(one: Server, connect: Callable[..., Client]) -> None:
    with pytest.raises(RequestRejectedError, match="raise max_message_bytes"):
        connect(one, max_message_bytes=2**16).model("wide").infer(x())
    assert connect(one).model("wide").infer(x())["Y"].shape == (1, 2**15)


def test_without_retries_one_attempt_is_made(one: Server, connect: Callable[..., Client]) -> None:
    model = connect(one, retry=RetryPolicy(attempts=1)).model("large")
    one.proxy.reset_after = LARGE
    with pytest.raises(ServerUnavailableError):
        model.infer({"X": np.ones((1, LARGE), np.float32)})
    assert one.proxy.connections == 1


@pytest.mark.full  # pings need seconds to be too many
@pytest.mark.parametrize("allowed", [[], ["--grpc-http2-min-recv-ping-interval-without-data=500"]], ids=["not", "are"])
def test_only_pings_that_a_server_permits_keep_the_connection(
    tmp_path: Path, connect: Callable[..., Client], allowed: list[str]
) -> None:
    write_faulty(tmp_path)
    with raw_server(tmp_path, *allowed) as (process, url), Proxy(url) as proxy:
        server = Server(tmp_path, process, proxy)
        model = connect(
            server, keepalive_s=1.0, keepalive_permitted=True, retry=RetryPolicy(attempts=1), timeout_s=60
        ).model("faulty")
        number = next(NUMBERS)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(model.infer, x(held=number))
            wait_until(call.done, 8)
            note(tmp_path, "let_go", number).touch()
            assert (call.exception() is None) == bool(allowed)
