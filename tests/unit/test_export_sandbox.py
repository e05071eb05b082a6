"""The process that reads a model: what it cannot do, and what its parent makes of whatever it says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.kernel import has_landlock

from radserve.errors import ConversionError, ExportError, UntrustedModelError
from radserve_export.network import Conversion, Form
from radserve_export.sandbox import child as child_module
from radserve_export.sandbox import messages
from radserve_export.sandbox.limits import Limits
from radserve_export.sandbox.network import converted_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = Conversion(form=Form.PLAIN)

CONFINED = """
import errno, json, os, sys
from radserve_export.sandbox.confine import confine
settings = json.loads(sys.argv[1])
confine(memory_bytes=2**30, parent=os.getppid(), **settings)
outside = os.path.dirname(settings["folder"])
def attempt():
{body}
try:
    attempt()
except OSError as error:
    print(errno.errorcode[error.errno])
except (ValueError, MemoryError) as error:
    print(type(error).__name__)
else:
    print("done")
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, object]:
    """A folder to write to, beside a file of somebody else's."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "file").write_text("of somebody else")
    readable = [path for path in (sys.prefix, sys.base_prefix, *sys.path) if path]
    return {"folder": str(tmp_path / "inside"), "readable": readable}


def _attempt(places: dict[str, object], code: str) -> str:
    body = "\n".join(f"    {line}" for line in code.splitlines())
    done = subprocess.run(  # noqa: S603 - this Python, and code from this file
        [sys.executable, "-c", CONFINED.format(body=body), json.dumps(places)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RADSERVE_SECRET": "x"},
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("open(settings['folder'] + '/mine', 'w').write('x')", "done"),
        ("import threading; t = threading.Thread(target=int); t.start(); t.join()", "done"),
        ("open(os.devnull, 'w').write('x')", "done"),
        ("import socket; socket.socket()", "EPERM"),
        ("import socket; socket.socket(socket.AF_UNIX)", "EPERM"),
        ("import socket; socket.socketpair()", "EPERM"),
        ("import subprocess; subprocess.run(['true'])", "EPERM"),
        ("os.execv('/bin/true', ['true'])", "EPERM"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "EPERM"),
        ("os.fork()", "EPERM"),
        ("os.memfd_create('x')", "EPERM"),
        ("open(outside + '/new', 'w')", "EACCES"),
        ("open(outside + '/file')", "EACCES"),
        ("os.remove(outside + '/file')", "EACCES"),
        ("os.truncate(outside + '/file', 0)", "EACCES"),
        ("os.chmod(outside + '/file', 0o777)", "EPERM"),
        ("os.utime(outside + '/file')", "EPERM"),
        ("os.rename(outside + '/file', settings['folder'] + '/stolen')", "EACCES"),
        ("os.link(outside + '/file', settings['folder'] + '/stolen')", "EXDEV"),
        ("os.mkfifo(outside + '/pipe')", "EACCES"),
        ("open('/dev/shm/radserve', 'w')", "EACCES"),
        ("open('/etc/shadow')", "EACCES"),
        ("open(f'/proc/{os.getppid()}/environ', 'rb').read()", "EACCES"),
        ("os.kill(os.getppid(), 0)", "EPERM"),
        ("import signal; os.kill(0, 0)", "EPERM"),
        ("import mmap; mmap.mmap(-1, 4096)", "EPERM"),
        ("import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40))", "ValueError"),
        ("import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))", "EPERM"),
        ("from radserve_export.sandbox._libc import prctl; prctl(1, 0)", "EPERM"),
        ("from radserve_export.sandbox._libc import unshare; unshare(0x10000000)", "EPERM"),
        ("from radserve_export.sandbox._libc import syscall; syscall(425, 1, None)", "EPERM"),
        ("from radserve_export.sandbox._libc import syscall; syscall(0x40000000 + 41, 2, 1, 0)", "ENOSYS"),
        ("from radserve_export.sandbox._libc import syscall; syscall(463, 0)", "ENOSYS"),
        ("bytearray(2**31)", "MemoryError"),
    ],
)
def test_a_confined_process_computes_and_does_nothing_else(
    places: dict[str, object], tmp_path: Path, code: str, outcome: str
) -> None:
    if outcome in ("EACCES", "EXDEV") and not has_landlock():
        pytest.skip("this kernel has no Landlock")
    assert _attempt(places, code) == outcome
    assert (tmp_path / "file").read_text() == "of somebody else"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "inside"]


NO_SECCOMP = """
import radserve_export.sandbox.confine as module
def refuse_system_calls():
    raise OSError
module.refuse_system_calls = refuse_system_calls
"""


def _without_seccomp(places: dict[str, object], more: str, code: str) -> str:
    script = NO_SECCOMP + more + CONFINED.format(body=f"    {code}")
    done = subprocess.run(  # noqa: S603 - this Python, and code from this file
        [sys.executable, "-c", script, json.dumps(places)], check=False, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def test_without_seccomp_a_name_space_takes_the_network(places: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connecting = f"import socket; socket.create_connection({server.getsockname()!r})"
        assert _without_seccomp(places, "", connecting) == "ENETUNREACH"


def test_without_both_the_process_says_that_it_is_not_confined(places: dict[str, object]) -> None:
    more = "def unshare(_flags):\n    raise OSError('no name spaces')\nmodule.unshare = unshare\n"
    assert _without_seccomp(places, more, "pass") == "OSError: no name spaces"


def test_a_process_whose_parent_is_gone_ends(places: dict[str, object]) -> None:
    script = CONFINED.format(body="    pass").replace("os.getppid()", "os.getpid()")
    done = subprocess.run(  # noqa: S603 - as above
        [sys.executable, "-c", script, json.dumps(places)], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.fixture
def hostile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_child_left: None,  # noqa: ARG001 - it checks in the end
) -> Iterator[Path]:
    """A model whose reader means harm; afterwards neither it nor a file of it is left."""
    monkeypatch.setattr(child_module, "_WORKER", "support.hostile_worker")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = tmp_path / "m.keras"
    model.write_bytes(b"nothing")
    yield model
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def _open(model: Path, what: str, limits: Limits) -> None:
    with converted_network(model, PLAIN, custom_objects=[what], limits=limits):
        pass


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("abort", r"died \(SIGABRT\)"),
        ("kill", r"died \(SIGKILL\).*--memory-limit-gib"),
        ("exit", r"died \(exit code 3\).*:  \[31mlast words\Z"),
        ("half", "died"),
        ("bad_alloc", "needs more than 1 GiB.*--memory-limit-gib"),
        ("allocate", "needs more than 1 GiB.*--memory-limit-gib"),
        ("huge", "an answer that is none"),
        ("noise", "an answer that is none"),
        ("pickle", "an answer that is none"),
        ("other", "an answer that is none"),
        ("external", "an answer that is none"),
        ("no graph", "an answer that is none"),
        ("no network", "an answer that is none"),
        ("tools", "an answer that is none"),
        ("kind", "an answer that is none"),
        ("many notes", "an answer that is none"),
        ("long note", "an answer that is none"),
        ("custom", "there is no ONNX operator for Evil"),
        ("lines", r"\Aa  \[2Jbx{500,600}\.\.\.\Z"),
    ],
)
def test_whatever_the_child_does_is_one_typed_line(hostile: Path, what: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        _open(hostile, what, Limits(memory_gib=1, time_s=60))
    assert str(caught.value).isprintable()


def test_what_the_child_warns_of_is_logged_fit_for_a_terminal(hostile: Path, caplog: pytest.LogCaptureFixture) -> None:
    _open(hostile, "notes", Limits(time_s=60))
    logged = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    texts = ["m.keras: a  [2Jb", f"m.keras: {'c' * 600}"]
    assert logged == [("radserve_export", "WARNING", text) for text in texts]


@pytest.mark.parametrize("what", ["sleep", "endless"])
def test_a_child_that_takes_too_long_is_ended(hostile: Path, what: str) -> None:
    with pytest.raises(ConversionError, match=r"m\.keras took longer than 1 s.*--time-limit-s"):
        _open(hostile, what, Limits(time_s=1))


def test_an_answer_whose_shape_lies_is_refused(hostile: Path) -> None:
    with (
        converted_network(hostile, PLAIN) as network,
        pytest.raises(ConversionError, match="an answer that is none"),
    ):
        network.reference({"x": np.zeros((1, 1), np.float32)})


def test_an_error_of_the_caller_leaves_nothing(hostile: Path) -> None:
    with pytest.raises(KeyboardInterrupt), converted_network(hostile, PLAIN):
        raise KeyboardInterrupt


def test_a_system_that_confines_nothing_needs_trust(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_WORKER", "support.unconfined_worker")
    with pytest.raises(UntrustedModelError, match=r"lets no process give up the network.*--trust"):
        _open(hostile, "", Limits())


@pytest.mark.full
def test_with_trust_a_file_is_read_where_nothing_confines(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_WORKER", "support.unconfined_worker")
    with pytest.raises(ConversionError, match=r"not a \.keras archive"), converted_network(hostile, PLAIN, trust=True):
        pass


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.array([[True], [False]]),
        np.array([1.5], np.float16),
        np.zeros((0, 4), np.float32),
        np.array(3.0),
        np.array([[b"a", "é".encode()]], object),
    ],
)
def test_arrays_arrive_as_they_were_sent(array: np.ndarray) -> None:  # type: ignore[type-arg]  # any element type
    request = messages.Run(part="", inputs=messages.pack({"x": array}))
    received = messages.decode_request(messages.encode(request))
    assert isinstance(received, messages.Run)
    (arrived,) = messages.unpack(received.inputs).values()
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert (arrived == array).all()


def test_elements_that_no_server_takes_are_refused() -> None:
    with pytest.raises(ExportError, match="tensor x has elements of type complex128"):
        messages.pack({"x": np.zeros(1, np.complex128)})
