"""Decoders that may crash do so in processes of their own, which their caller outlives and leaves none of."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from support.datasets import TEST_FILES

from radserve.dicom import _budget, _isolated, _memory, open_series, read_image
from radserve.dicom._codecs import decode_here
from radserve.errors import DecodeError, UnsupportedTransferSyntaxError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from radserve.dicom._codecs import Frame

LOSSLESS = TEST_FILES / "SC_rgb_jpeg_gdcm.dcm"
JPEG_LS = TEST_FILES / "MR_small_jpeg_ls_lossless.dcm"


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[_isolated._Processes]:
    """Decoder processes of this test alone."""
    own = _isolated._Processes()
    monkeypatch.setattr(_isolated, "_processes", own)
    yield own
    own.close()


def deadly() -> bytes:
    """A JPEG Lossless file that GDCM dies of: no symbol in its Huffman table."""
    data = bytearray(LOSSLESS.read_bytes())
    data[data.rindex(b"\xff\xd8\xff") + 38] = 0
    return bytes(data)


def slow(size: int = 2048, frames: int = 1, number: int = 1) -> Dataset:
    """Noise: of 2048 rows and columns OpenJPEG takes most of a second for a frame."""
    noise = np.random.default_rng(0).integers(0, 2**16, (size, size), dtype=np.uint16)
    dataset = pydicom.dcmread(TEST_FILES / "MR_small_jp2klossless.dcm")
    dataset.PixelData = encapsulate([bytes(encode_array(noise))] * frames)
    dataset.Rows, dataset.Columns = noise.shape
    dataset.NumberOfFrames, dataset.InstanceNumber, dataset.SOPInstanceUID = frames, number, f"1.2.{number}"
    del dataset.ImagePositionPatient
    return dataset


def hasten(monkeypatch: pytest.MonkeyPatch, *, limit_s: float) -> None:
    """Expect frames of any size at once."""
    monkeypatch.setattr(_budget, "LIMIT_CPU_S", limit_s)
    for name in ("BYTES_A_SECOND", "SAMPLES_A_SECOND"):
        monkeypatch.setattr(_budget, name, 2**40)


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})  # noqa: S603 - Python itself


def test_a_file_that_kills_its_decoder_is_refused_and_the_next_is_read(processes: _isolated._Processes) -> None:
    expected = read_image(LOSSLESS).values
    with pytest.raises(DecodeError, match="crashed") as caught:
        read_image(deadly())
    assert caught.value.is_final
    assert not processes._busy
    np.testing.assert_array_equal(read_image(LOSSLESS).values, expected)


def test_the_same_file_kills_the_process_that_decodes_it_itself(tmp_path: Path) -> None:
    path = tmp_path / "deadly.dcm"
    path.write_bytes(deadly())
    script = "import sys; from radserve.dicom import read_image; read_image(sys.argv[1])"
    assert run(script, str(path), RADSERVE_ISOLATED="1").returncode < 0
    assert "DecodeError" in run(script, str(path)).stderr


def test_a_file_that_stalls_its_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch, limit_s=0.2)
    with pytest.raises(DecodeError, match="made to stall"):
        read_image(slow(4096))


@pytest.mark.parametrize("files", [1, 40])
def test_frames_that_stall_together_are_refused_before_all_are_decoded(
    monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    hasten(monkeypatch, limit_s=1)  # of which each frame takes a part alone
    series = open_series([slow(512, frames=40 // files, number=number) for number in range(files)])
    decoded: list[int | None] = []

    def decode() -> None:
        for image in series.images():
            decoded.append(image.frame_number)  # noqa: PERF401 - those before the error count

    with pytest.raises(DecodeError, match="made to stall"):
        decode()
    assert 1 < len(decoded) < len(series) == 40


def test_a_frame_that_took_long_leaves_less_for_the_next_and_a_quick_one_no_more() -> None:
    budget = _budget.Budget()
    budget.spend(1, usual_s=3)
    assert budget.left_s == _budget.LIMIT_CPU_S
    budget.spend(3, usual_s=1)
    assert budget.left_s == _budget.LIMIT_CPU_S - 2
    budget.spend(1, usual_s=2)
    assert budget.left_s == _budget.LIMIT_CPU_S - 1


# The limit is close above what the process has before it decodes anything.
SMALL = """
import sys; sys.path[:] = sys.argv[1:]
import radserve.dicom._decoder_process as child
(used,) = (line for line in open("/proc/self/status") if line.startswith("VmData"))
child.LIMIT_BYTES = int(used.split()[1]) * 1024 + {room}
child.main()
"""


@pytest.mark.parametrize("room_mib", [1, 16, 24, 32])  # to take the frame; for the decoder's own; for its answer
def test_a_frame_that_takes_too_much_memory_is_refused_by_the_limits_name(
    monkeypatch: pytest.MonkeyPatch, room_mib: int
) -> None:
    monkeypatch.setattr(_isolated, "_BOOT", SMALL.format(room=room_mib << 20))
    with pytest.raises(DecodeError, match="more than 900 MiB of memory"):
        read_image(slow())


def lack_memory(*_: object) -> Frame:
    """A decoder that tells nobody why it gives up, as OpenJPEG and CharLS do not."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    assert malloc(2**62) is None
    raise RuntimeError


def test_memory_that_a_library_lacked_is_told_though_it_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADSERVE_ISOLATED", "1")
    monkeypatch.setattr(_isolated, "decode_here", lack_memory)
    with pytest.raises(DecodeError, match="too little memory") as lacking:
        read_image(JPEG_LS)
    assert not lacking.value.is_final
    monkeypatch.setattr(_isolated, "decode_here", decode_here)
    damaged = pydicom.dcmread(JPEG_LS)
    damaged.PixelData = damaged.PixelData[:1000] + bytes(1000) + damaged.PixelData[2000:]
    with pytest.raises(DecodeError, match="damaged: fetch"):
        read_image(damaged)


def test_an_allocation_that_failed_before_is_none_of_this_decoders() -> None:
    _memory._errno_location()[0] = errno.ENOMEM
    allocations = _memory.Allocations()
    assert not allocations.failed(RuntimeError())
    assert allocations.failed(MemoryError())


def test_a_decoder_that_the_system_killed_is_told_from_one_that_crashed(
    monkeypatch: pytest.MonkeyPatch, processes: _isolated._Processes
) -> None:
    read_image(JPEG_LS)
    (idle,) = processes._idle
    os.kill(idle._process.pid, signal.SIGKILL)
    monkeypatch.setattr(_isolated._Process, "is_alive", lambda _: True)
    with pytest.raises(DecodeError, match="runs out of memory") as caught:
        read_image(JPEG_LS)
    assert not caught.value.is_final


def test_a_process_is_used_again_and_as_many_run_as_threads_decode(processes: _isolated._Processes) -> None:
    for _ in range(3):
        read_image(JPEG_LS)
    (first,) = processes._idle
    barrier = threading.Barrier(3)

    def read(_: int) -> float:
        barrier.wait()
        return float(read_image(JPEG_LS).values.sum())

    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(read, range(3)))) == 1
    assert first in processes._idle
    assert 1 <= len(processes._idle) <= 3


def test_what_one_thread_decodes_never_reaches_another() -> None:
    paths = [JPEG_LS, LOSSLESS, TEST_FILES / "JPEGLSNearLossless_16.dcm", TEST_FILES / "JPGExtended.dcm"]
    expected = [read_image(path).values for path in paths]
    with ThreadPoolExecutor(4) as threads:
        for place, image in enumerate(threads.map(read_image, paths * 15)):
            np.testing.assert_array_equal(image.values, expected[place % len(paths)])


def test_a_process_that_left_while_idle_is_replaced(processes: _isolated._Processes) -> None:
    expected = read_image(JPEG_LS).values
    (idle,) = processes._idle
    idle._process.kill()
    idle._process.wait()
    np.testing.assert_array_equal(read_image(JPEG_LS).values, expected)
    # It may also leave between the look and the request.
    (idle,) = processes._idle
    idle._requests.close()
    idle._process.wait()
    idle._process.returncode = None
    idle._requests = open(os.devnull, "wb", buffering=0)  # noqa: SIM115, PTH123 - takes the request, as a pipe may
    np.testing.assert_array_equal(read_image(JPEG_LS).values, expected)


def test_an_answer_to_another_request_is_not_believed(processes: _isolated._Processes) -> None:
    expected = read_image(JPEG_LS).values
    (idle,) = processes._idle
    genuine = idle._send
    sent: list[bytes] = []

    def late(data: bytes) -> None:
        # The header of the request before: its answer is still to come.
        number, *sizes = _isolated.HEADER.unpack(data) if not sent else (0, 0, 0)
        genuine(data if sent else _isolated.HEADER.pack(number - 1, *sizes))
        sent.append(data)

    idle._send = late  # type: ignore[method-assign]
    with suppress(DecodeError):
        np.testing.assert_array_equal(read_image(JPEG_LS).values, expected)
    assert sent
    assert idle not in processes._idle


def test_an_interrupted_caller_drops_the_process_with_its_answer(
    processes: _isolated._Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_image(JPEG_LS)
    (idle,) = processes._idle

    def interrupted(_: int) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(idle, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_image(JPEG_LS)
    assert not processes._idle
    assert not idle.is_alive()


def test_a_forked_child_leaves_the_processes_to_its_parent(processes: _isolated._Processes) -> None:
    expected = read_image(JPEG_LS).values
    (idle,) = processes._idle
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        left = not processes._idle
        same = np.array_equal(read_image(JPEG_LS).values, expected)
        os.write(write_end, b"a process of its own" if left and same else b"other")
        processes.close()
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"a process of its own"
    os.close(read_end)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(read_image(JPEG_LS).values, expected)
    assert processes._idle == [idle]


def test_no_process_outlives_its_caller() -> None:
    script = """
        import os, signal, sys
        from radserve.dicom import read_image, _isolated
        read_image(sys.argv[1])
        (idle,) = _isolated._processes._idle
        print(idle._process.pid, flush=True)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    for end in ("killed", "ended"):
        done = run(script, str(JPEG_LS), end)
        assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
        assert done.stderr == ""
        wait_for_the_end_of(int(done.stdout))


def wait_for_the_end_of(pid: int) -> None:
    """A process of nobody's: pidfd waits for those that are no children, too."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select  # noqa: PLC0415 - beside its one use

    try:
        assert select.select([descriptor], [], [], 30)[0], "the decoder process lives on"
    finally:
        os.close(descriptor)


def test_a_decoder_process_knows_no_secrets(monkeypatch: pytest.MonkeyPatch, processes: _isolated._Processes) -> None:
    for name in ("RADSERVE_TOKEN", "PACS_PASSWORD"):
        monkeypatch.setenv(name, "7fe3")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    read_image(JPEG_LS)
    (idle,) = processes._idle
    environment = Path(f"/proc/{idle._process.pid}/environ").read_bytes()
    assert b"7fe3" not in environment
    assert b"LD_LIBRARY_PATH=/nowhere\0" in environment


def test_memory_of_a_decoder_process_is_bounded(processes: _isolated._Processes) -> None:
    read_image(JPEG_LS)
    (idle,) = processes._idle
    limits = (f"/proc/{idle._process.pid}/limits",)
    with open(*limits, encoding="ascii") as lines:  # noqa: PTH123 - one line of it
        (line,) = [line for line in lines if line.startswith("Max data size")]
    assert line.split()[3:5] == [str(_isolated.LIMIT_BYTES)] * 2


def test_no_module_is_taken_from_the_folder_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os; os._exit(9)")
    script = """
        import os, sys
        sys.path = [entry for entry in sys.path if entry]
        from radserve.dicom import read_image
        os.chdir(sys.argv[1])
        print(read_image(sys.argv[2]).values.shape)
    """
    assert run(script, str(tmp_path), str(JPEG_LS)).stdout.strip() == "(64, 64)"


def test_no_process_that_cannot_start_is_taken_for_a_bad_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("/bin/false", "/nowhere/python"):
        monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda path=executable: path)
        with pytest.raises(UnsupportedTransferSyntaxError, match="can be started") as caught:
            read_image(JPEG_LS)
        assert not caught.value.is_final


def test_a_process_that_may_die_decodes_itself(
    monkeypatch: pytest.MonkeyPatch, processes: _isolated._Processes
) -> None:
    expected = read_image(JPEG_LS)
    processes.close()
    called: list[str] = []

    def spy(data: bytes, syntax: pydicom.uid.UID, decoder: str, options: dict[str, int]) -> Frame:
        called.append(decoder)
        return decode_here(data, syntax, decoder, options)

    monkeypatch.setattr(_isolated, "decode_here", spy)
    monkeypatch.setenv("RADSERVE_ISOLATED", "1")
    np.testing.assert_array_equal(read_image(JPEG_LS).values, expected.values)
    assert called == ["pyjpegls"]
    assert not processes._idle


def test_decoders_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("JPGExtended.dcm", "examples_jpeg2k.dcm"):
        read_image(TEST_FILES / name)
    with pytest.raises(DecodeError):
        read_image(deadly())
    assert "".join(capfd.readouterr()) == ""
