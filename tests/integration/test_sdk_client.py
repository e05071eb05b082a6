"""The client against a real Triton."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pydicom
import pytest
import tritonclient.grpc as triton
from support.callers import Callers
from support.classifiers import image_contract, set_contract, text_contract, write_classifier
from support.datasets import TEST_FILES
from support.figures import timed
from support.repositories import write_add_one
from support.servers import free_port, raw_server, wait_until

from radserve import (
    Classification,
    Client,
    ClientClosedError,
    ContractError,
    DeadlineExceededError,
    DecodeError,
    InputError,
    ModelNotFoundError,
    OutOfScopeError,
    Priority,
    Rejection,
    ServerUnavailableError,
    _codec,
)
from radserve.contracts import SCHEMA_VERSION, Contract, EveryImage, FixedWindow, ImageInput
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CT = TEST_FILES / "CT_small.dcm"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_classifier(repository, text_contract())
    write_add_one(repository)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


def test_a_file_becomes_findings(client: Client) -> None:
    model = client.model("brightness")
    result = model.predict(CT, priority=Priority.STAT, timeout_s=5)
    bright = next(finding for finding in result.findings if finding.label == "bright")
    assert bright.probability == pytest.approx(model.prepare(CT)["PIXELS"].mean() / 255, abs=1e-6)
    assert result.top.is_positive
    assert result.provenance.sop_instance_uids == (str(pydicom.dcmread(CT).SOPInstanceUID),)
    assert result.provenance.intended_use == "For tests only"


@pytest.mark.parametrize(
    "source",
    [str(CT), CT.read_bytes(), pydicom.dcmread(CT), pydicom.dcmread(CT).pixel_array.astype(float) - 1024],
    ids=["path", "bytes", "dataset", "array"],
)
def test_every_kind_of_source_gets_the_same_answer(client: Client, source: Any) -> None:
    model = client.model("brightness")
    assert model.predict(source).top == model.predict(CT).top


def test_a_report_becomes_findings(client: Client) -> None:
    model = client.model("triage")
    assert model.predict("urgent: 气胸").top.is_positive
    assert not model.predict("nothing").top.is_positive


def test_a_report_that_the_server_finds_too_long_is_out_of_scope(client: Client) -> None:
    with pytest.raises(OutOfScopeError, match="9 tokens"):
        client.model("triage").predict("one two three four five six seven eight nine")


def test_models_lists_the_public_ones_with_their_contracts(client: Client) -> None:
    assert [model.name for model in client.models()] == ["add_one", "brightness", "triage"]
    assert client.models()[1].contract == image_contract()
    assert "brightness 1" in repr(client.models()[1])


def test_a_step_is_no_public_model(client: Client) -> None:
    with pytest.raises(ContractError, match="radserve models"):
        client.model("brightness_step")


def test_an_unknown_model_is_not_found(client: Client) -> None:
    with pytest.raises(ModelNotFoundError, match="nope"):
        client.model("nope")


def test_arrays_in_arrays_out(client: Client) -> None:
    given = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(client.model("add_one").infer({"X": given})["Y"], given + 1)


def test_what_prepare_gives_infer_takes(client: Client) -> None:
    model = client.model("brightness")
    probabilities = model.infer(model.prepare(CT))["PROBABILITIES"][0]
    assert model.predict(CT).top.probability == pytest.approx(probabilities.max())


def test_many_inputs_are_answered_in_order_and_a_bad_one_stops_none(client: Client) -> None:
    sources: list[str | Path] = [CT, TEST_FILES / "MR_small.dcm", CT, TEST_FILES / "MR_truncated.dcm", "/nowhere", CT]
    answers = list(client.model("brightness").predict_many(sources, workers=2))
    kinds = [type(answer.error) if isinstance(answer, Rejection) else type(answer) for answer in answers]
    assert kinds == [Classification, OutOfScopeError, Classification, DecodeError, InputError, Classification]
    assert [answer.index for answer in answers if isinstance(answer, Rejection)] == [1, 3, 4]


def test_many_inputs_are_taken_only_as_they_are_needed(client: Client) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(1)
            yield "urgent"

    answers = client.model("triage").predict_many(endless(), workers=3)
    for _ in range(10):
        next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(taken) <= 10 + 2 * 3


def _slices(count: int) -> list[pydicom.Dataset]:
    """A series of CT slices, each brighter than the one before."""
    slices: list[pydicom.Dataset] = []
    for number in range(count):
        one = pydicom.dcmread(CT)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"2.25.{number + 1}")
        one.ImagePositionPatient = [0, 0, 5 * number]
        one.RescaleIntercept = -1024 + 10 * number
        slices.append(one)
    return slices


def test_a_study_larger_than_a_batch_is_answered_as_one(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    contract = image_contract()
    assert isinstance(contract.input, ImageInput)
    described = msgspec.structs.replace(contract.input, study=EveryImage())
    write_classifier(tmp_path, msgspec.structs.replace(contract, input=described))
    server = start_server(tmp_path, verify=False, supervise=False)
    slices = _slices(11)
    with Client(server.grpc_url) as client:
        model = client.model("brightness", Classification)
        pixels = model.prepare(slices)["PIXELS"]
        result = model.predict(slices)
    assert len(pixels) == 11 > contract.max_batch_size
    assert [one.sop_instance_uid for one in result.images] == [one.SOPInstanceUID for one in slices]
    means = pixels.reshape(11, -1).mean(axis=1) / 255
    found = [{finding.label: finding.probability for finding in one.findings}["bright"] for one in result.images]
    assert found == pytest.approx(means, abs=1e-6)
    assert len(set(found)) == 11, "each slice must have an answer of its own for a mixed order to be seen"


def test_one_path_is_not_many(client: Client) -> None:
    with pytest.raises(InputError, match=r"predict\(\)"):
        client.model("brightness").predict_many(str(CT))


def test_threads_share_a_client(client: Client) -> None:
    model = client.model("add_one")

    def call(number: int) -> bool:
        given = np.full((1, 4), number, np.float32)
        return bool((model.infer({"X": given})["Y"] == number + 1).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


def test_health_is_a_real_inference_of_every_public_model(client: Client) -> None:
    taken_s = client.health()
    assert sorted(taken_s) == ["add_one", "brightness", "triage"]
    assert all(seconds > 0 for seconds in taken_s.values())
    assert list(client.health("triage")) == ["triage"]


def test_a_closed_client_says_so(server: EmbeddedServer) -> None:
    with Client(server.grpc_url) as client:
        model = client.model("triage")
        answers = model.predict_many(["urgent"] * 3)
    for call in (
        lambda: model.predict("x"),
        client.models,
        client.health,
        lambda: client.model("triage"),
        lambda: model.predict_many([]),
        lambda: next(answers),
        lambda: client.wait_until_ready(1),
    ):
        with pytest.raises(ClientClosedError):
            call()
    client.close()
    assert "(closed)" in repr(client)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "5"])
def test_a_time_budget_must_be_finite(client: Client, timeout_s: Any) -> None:
    with pytest.raises(InputError, match="timeout_s"):
        client.model("triage", timeout_s=timeout_s)


def test_no_server_is_an_unavailable_one() -> None:
    with (
        Client(f"127.0.0.1:{free_port()}", timeout_s=60) as client,
        pytest.raises(ServerUnavailableError, match="127"),
        timed("refused_after_s"),
    ):
        client.model("triage")


def test_waiting_for_a_server_that_never_comes_ends_in_time() -> None:
    with Client(f"127.0.0.1:{free_port()}") as client:
        begin = time.monotonic()
        with timed("ended_after_s"), pytest.raises(DeadlineExceededError, match="no server answers gRPC"):
            client.wait_until_ready(0.7)
        assert 0.6 < time.monotonic() - begin < 10  # where the machine is slow; without an end it is much longer


def test_waiting_for_a_server_that_comes_late_succeeds(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    write_add_one(tmp_path)
    port = free_port()
    with Client(f"127.0.0.1:{port}") as client:
        waiting = threading.Thread(target=client.wait_until_ready, args=(60,))
        waiting.start()
        start_server(tmp_path, grpc_port=port, verify=False, supervise=False)
        with timed("found_after_s"):
            waiting.join(60)
        assert not waiting.is_alive()
        assert list(client.health()) == ["add_one"]


def _windowed(version: int) -> Contract:
    """Each version has another window: an input prepared by one contract and answered by another is seen."""
    contract = image_contract(version)
    assert isinstance(contract.input, ImageInput)
    window = FixedWindow(center=40.0 + 100 * (version - 1), width=400)
    return msgspec.structs.replace(contract, input=msgspec.structs.replace(contract.input, window=window))


def _publish(repository: Path, version: int, url: str) -> None:
    set_contract(repository, _windowed(version))
    with triton.InferenceServerClient(url) as control:
        control.load_model("brightness")


def test_a_model_published_again_is_followed_without_a_failure_or_a_mixed_answer(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    write_classifier(tmp_path, image_contract())
    server = start_server(tmp_path, verify=False, supervise=False)
    with Client(server.grpc_url) as client, Callers(server.grpc_url, "brightness", CT) as callers:
        assert callers.see() == 1
        for version in range(2, 7):
            _publish(tmp_path, version, server.grpc_url)
            assert callers.see() == version
            pixels = client.model("brightness").prepare(CT)["PIXELS"]
            assert callers.expected[version]["bright"] == pytest.approx(pixels.mean() / 255, abs=1e-6)
    callers.check()
    probabilities = [answer["bright"] for answer in callers.expected.values()]
    assert len(set(probabilities)) == 6, "versions must answer differently for a mixed answer to be seen"


def test_servers_that_get_a_version_one_after_the_other_give_no_failure_and_no_mixed_answer(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        write_classifier(folder, image_contract())
    urls = [start_server(folder, verify=False, supervise=False).grpc_url for folder in folders]
    expected = {version: _codec.prepare(_windowed(version), CT).inputs["PIXELS"].mean() / 255 for version in (1, 2)}
    versions: deque[int] = deque()
    stop = threading.Event()
    with Client(urls, timeout_s=20) as client, ThreadPoolExecutor(3) as pool:

        def call() -> None:
            model = client.model("brightness", Classification)
            while not stop.is_set():
                result = model.predict(CT)
                found = {finding.label: finding.probability for finding in result.findings}
                assert found["bright"] == pytest.approx(expected[result.version], abs=1e-6)
                versions.append(result.version)

        def more_of(version: int) -> None:
            wanted = versions.count(version) + 100
            assert wait_until(lambda: versions.count(version) >= wanted or any(one.done() for one in calls))

        calls = [pool.submit(call) for _ in range(3)]
        try:
            more_of(1)
            _publish(folders[0], 2, urls[0])
            more_of(2)  # while the other server knows the first version alone
            _publish(folders[1], 2, urls[1])
            more_of(2)
        finally:
            stop.set()
        for one in calls:
            one.result()
    settled = list(versions)[-50:]
    assert set(settled) == {2}


FORKING = """
import os, sys
from radserve import Client, ClientClosedError

client = Client(sys.argv[1])
client.health("add_one")
child = os.fork()
if child == 0:
    try:
        client.health("add_one")
    except ClientClosedError as error:
        print(error, flush=True)
    client.close()
    with Client(sys.argv[1]) as own:
        print(own.health("add_one"), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(client.health("add_one"))
"""


def test_a_client_does_not_live_through_a_fork_and_says_so(server: EmbeddedServer) -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, server.grpc_url],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told, own, parents = done.stdout.splitlines()
    assert "make a client in each worker process, after the fork" in told
    assert own.startswith("{'add_one'")
    assert parents.startswith("{'add_one'")


def test_arrays_say_which_version_gave_them(client: Client) -> None:
    model = client.model("add_one")
    tensors = model.infer({"X": np.zeros((1, 4), np.float32)})
    assert (tensors.model, tensors.version, model.version) == ("add_one", 1, 1)
    assert not tensors["Y"].flags.writeable


def test_one_model_of_a_newer_sdk_hides_none_of_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_add_one(tmp_path)
    write_add_one(tmp_path, "ahead")
    config = tmp_path / "ahead" / "config.pbtxt"
    told = config.read_text()
    config.write_text(told.replace(f'schema_version\\":{SCHEMA_VERSION}', 'schema_version\\":99'))
    assert config.read_text() != told
    with raw_server(tmp_path) as (_, url), Client(url) as client:
        client.wait_until_ready(30)
        with caplog.at_level(logging.WARNING, "radserve"):
            assert [model.name for model in client.models()] == ["add_one"]
            assert list(client.health()) == ["add_one"]
        with pytest.raises(ContractError, match="newer checkout"):
            client.model("ahead")
    assert any("ahead" in line for line in caplog.messages)
