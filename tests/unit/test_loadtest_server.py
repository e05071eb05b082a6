"""What is made of a server's statistics, and how secrets go to workers."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from radserve._codec import Calls, Statistics, statistics_flow
from radserve._codec._flow import ReadConfig, ReadStatistics, Reply
from radserve.errors import InferenceFailedError
from radserve.loadtest._server import steps_between
from radserve.options import ClientOptions, Secret

if TYPE_CHECKING:
    from pathlib import Path


def statistics_of(name: str, version: int, requests: int) -> service_pb2.ModelStatistics:
    told = service_pb2.ModelStatistics(
        name=name, version=str(version), inference_count=2 * requests, execution_count=requests // 2
    )
    told.inference_stats.success.count = requests
    told.inference_stats.success.ns = requests * 4_000_000
    told.inference_stats.fail.count = 1
    for place, time in enumerate(("queue", "compute_input", "compute_infer", "compute_output")):
        getattr(told.inference_stats, time).ns = requests * (place + 1) * 100_000
    size = told.batch_stats.add(batch_size=4)
    size.compute_infer.count, size.compute_infer.ns = requests // 2, requests * 1_000_000
    return told


def read(servers: dict[str, dict[str, list[service_pb2.ModelStatistics]]]) -> tuple[Statistics, ...]:
    """What a flow makes of servers' answers."""
    call = Calls(ClientOptions(endpoints=tuple(servers))).start(5, is_closed=False)
    config = model_config_pb2.ModelConfig(name="demo")
    for name, version in (("demo_a", -1), ("demo_b", 2), ("demo_a", -1)):
        config.ensemble_scheduling.step.add(model_name=name, model_version=version)
    flow = statistics_flow("demo", 7, call)
    answer: Any = None
    try:
        while True:
            asked: Any = flow.send(answer)
            step, endpoint = asked.call, asked.call.endpoint
            assert isinstance(step, ReadConfig | ReadStatistics)
            message = config if isinstance(step, ReadConfig) else servers[endpoint].get(step.model, [])
            answer = Reply(message=message, endpoint=endpoint)
    except StopIteration as end:
        told: tuple[Statistics, ...] = end.value
        return told


def one_server(requests: int) -> dict[str, list[service_pb2.ModelStatistics]]:
    return {
        "demo": [statistics_of("demo", 6, 999), statistics_of("demo", 7, requests)],
        "demo_a": [statistics_of("demo_a", version, requests + version) for version in (1, 10, 9)],
        "demo_b": [statistics_of("demo_b", version, requests + version) for version in (1, 2, 3)],
    }


def test_each_step_is_told_once_by_the_version_that_the_ensemble_asks_for() -> None:
    told = read({"localhost:1": one_server(100)})
    assert [(one.model, one.version, one.requests, one.is_ensemble) for one in told] == [
        ("demo", 7, 100, True),
        ("demo_a", 10, 110, False),
        ("demo_b", 2, 102, False),
    ]


def test_those_of_several_servers_add_up() -> None:
    told = read({"localhost:1": one_server(100), "localhost:2": one_server(300)})
    assert [one.requests for one in told] == [400, 420, 404]
    assert told[0].batch_sizes == {4: (200, 400_000_000)}


def test_a_version_without_statistics_is_an_error() -> None:
    with pytest.raises(InferenceFailedError, match="no statistics of model demo_b, version 2"):
        read({"localhost:1": {**one_server(1), "demo_b": []}})


def test_a_breakdown_is_of_what_happened_in_between() -> None:
    before, after = (read({"localhost:1": one_server(requests)}) for requests in (100, 300))
    ensemble = steps_between(before, after)[0]
    assert (ensemble.requests, ensemble.inferences, ensemble.executions, ensemble.failed) == (200, 400, 100, 0)
    parts = (ensemble.queue_s, ensemble.compute_input_s, ensemble.compute_infer_s, ensemble.compute_output_s)
    assert parts == pytest.approx((1e-4, 2e-4, 3e-4, 4e-4))
    assert ensemble.total_s == pytest.approx(4e-3)
    (size,) = ensemble.batch_sizes
    assert (size.size, size.count) == (4, 100)
    assert size.infer_s == pytest.approx(2e-3)


def test_there_is_no_breakdown_without_both_readings() -> None:
    told = read({"localhost:1": one_server(1)})
    assert steps_between(None, told) == steps_between(told, None) == ()


def test_nothing_happened_is_no_division_by_zero() -> None:
    told = read({"localhost:1": one_server(1)})
    assert steps_between(told, told)[0].total_s == 0


def test_a_secret_of_the_environment_goes_to_another_process_with_its_value() -> None:
    secret = pickle.loads(pickle.dumps(Secret.from_environment("TOKEN", {"TOKEN": "abc", "OTHER": "xyz"})))  # noqa: S301 - ours
    assert secret.read() == "abc"
    assert b"xyz" not in pickle.dumps(secret)


def test_a_secret_of_a_file_is_read_again_there(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    pickled = pickle.dumps(Secret.from_file(file))
    assert b"first" not in pickled
    file.write_text("second")
    assert pickle.loads(pickled).read() == "second"  # noqa: S301 - ours
