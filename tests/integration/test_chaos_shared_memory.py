"""A /dev/shm that is full, for real: each scene is played by a process of its own, whose /dev/shm is small."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.disks import Disk, unshare
from support.echo import write_echo
from support.leftovers import leftovers

from radserve import Client, InferenceFailedError
from radserve.errors import ServerStartError
from radserve.options import ClientOptions
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve import Model

_SHM = Disk(Path("/dev/shm"))  # noqa: S108 - what is filled
_LARGE = 2**18  # numbers, 1 MiB


def _is_answered(model: Model, size: int) -> bool:
    """Whether the first four numbers of an input come back plus one; False where the server lacks shared memory."""
    try:
        return bool((model.infer({"X": np.ones((1, size), np.float32)})["Y"] == 2).all())
    except InferenceFailedError as error:
        assert "is full: give it a larger /dev/shm" in str(error)  # noqa: PT017 - False is an answer, too
        return False


@contextmanager
def _served(*, shared_memory: bool = False) -> Iterator[tuple[EmbeddedServer, Model]]:
    with tempfile.TemporaryDirectory() as folder:
        write_echo(Path(folder))
        with EmbeddedServer(Path(folder), verify=False, canary_period_s=0.2) as server:
            options = ClientOptions(endpoints=(server.grpc_url,), shared_memory=shared_memory)
            with Client(options=options) as client:
                yield server, client.model("echo")


def a_server_without_room_does_not_start() -> None:
    _SHM.fill(leave=2**19)
    with pytest.raises(ServerStartError, match=r"shm-size.*No space left on device"), _served():
        pass


def what_does_not_fit_fails_alone_until_there_is_room() -> None:
    with _served() as (server, model):
        pid = server.pid
        assert _is_answered(model, 4)
        _SHM.fill()
        assert not _is_answered(model, _LARGE)
        assert _is_answered(model, 4)
        _SHM.make_room()
        assert _is_answered(model, _LARGE)
        assert server.pid == pid


def a_clients_inputs_then_go_over_the_connection() -> None:
    told = io.StringIO()
    logging.getLogger("radserve").addHandler(logging.StreamHandler(told))
    with _served(shared_memory=True) as (server, model):
        with Client(server.grpc_url) as plain:
            assert _is_answered(plain.model("echo"), _LARGE)  # the server takes what it needs
        _SHM.fill()
        assert _is_answered(model, _LARGE)
        assert _regions(server) == set()
        assert "No space left on device" in told.getvalue()
        _SHM.make_room()
        assert _is_answered(model, _LARGE)
        assert len(_regions(server)) == 1


def regions_of_dead_clients_make_room() -> None:
    with _served(shared_memory=True) as (server, model):
        with Client(server.grpc_url) as plain:
            assert _is_answered(plain.model("echo"), _LARGE)
        script = (
            "from radserve._transport import _shared_memory as s; print(s._create(int(__import__('sys').argv[1])).name)"
        )
        free = str(_SHM.free)
        dead = subprocess.run([sys.executable, "-c", script, free], capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
        assert (_SHM.path / dead.stdout.strip()).exists()
        assert _SHM.free == 0
        assert _is_answered(model, _LARGE)
        assert len(_regions(server)) == 1
        assert not (_SHM.path / dead.stdout.strip()).exists()


def _regions(server: EmbeddedServer) -> set[str]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        return set(client.get_system_shared_memory_status().regions)


_SCENES: list[Callable[[], None]] = [
    a_server_without_room_does_not_start,
    what_does_not_fit_fails_alone_until_there_is_room,
    a_clients_inputs_then_go_over_the_connection,
    regions_of_dead_clients_make_room,
]


@pytest.mark.parametrize("scene", _SCENES, ids=lambda scene: scene.__name__)
def test_with_a_small_dev_shm(scene: Callable[[], None]) -> None:
    command = [*unshare("mount -t tmpfs -o size=8m none /dev/shm"), sys.executable, __file__, scene.__name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    played = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - ourselves
    assert played.returncode == 0, played.stderr


if __name__ == "__main__":
    next(scene for scene in _SCENES if scene.__name__ == sys.argv[1])()
    _SHM.make_room()
    assert not list(_SHM.path.iterdir())
    assert not leftovers()
