"""Custom layers of a user, for ``--custom-objects support.custom_layers:NAME``."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve_export.from_keras._tensorflow import keras

if TYPE_CHECKING:
    from collections.abc import Callable


class Doubled(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Twice its input."""

    def call(self, x: Any) -> Any:
        return x * 2


@keras.saving.register_keras_serializable(package="hospital")
class Registered(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Three times its input, registered."""

    def call(self, x: Any) -> Any:
        return x * 3


@keras.saving.register_keras_serializable(package="elsewhere", name="Doubled")
class Other(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Another layer, registered under the name of Doubled."""

    def call(self, x: Any) -> Any:
        return x


def squared(x: Any) -> Any:
    """An activation."""
    return x * x


class Greedy(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Wants all the memory there is, once it runs."""

    def call(self, x: Any) -> Any:
        return x + self.held() if os.environ.get("HOME", "").endswith("home") else x

    def held(self) -> float:
        held = []
        while True:
            held.append(np.empty(2**26))


class Slow(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Never finishes in the child."""

    def call(self, x: Any) -> Any:
        while os.environ.get("HOME", "").endswith("home"):
            time.sleep(1)
        return x


class Spy(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Tries what a stolen layer would, and answers how many of its attempts came through.

    Args:
        folder: Where it would leave files.
        port: What it would call.
    """

    def __init__(self, folder: str = "", port: int = 0, **others: Any) -> None:
        super().__init__(**others)
        self.folder, self.port = folder, port

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"folder": self.folder, "port": self.port}

    def attempts(self) -> list[Callable[[], Any]]:
        folder = Path(self.folder)
        return [
            lambda: Path("mine").write_text("into the private folder"),  # the one that is allowed
            lambda: socket.create_connection(("127.0.0.1", self.port), timeout=5),
            lambda: subprocess.run(["/bin/touch", str(folder / "run")], check=True),  # noqa: S603 - it must not run
            lambda: os.posix_spawn("/bin/touch", ["touch", str(folder / "spawned")], {}),
            lambda: os.fork() or os._exit(0),
            lambda: (folder / "written").write_text("x"),
            (folder / "secret").read_text,
            (folder / "secret").unlink,
            lambda: os.environ["RADSERVE_SECRET"],
            lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
            lambda: os.kill(os.getppid(), 0),
        ]

    def call(self, x: Any) -> Any:
        if not self.folder:
            return x
        return keras.ops.stack([x[:, 0] * 0 + _succeeds(attempt) for attempt in self.attempts()], axis=1)


def _succeeds(attempt: Callable[[], Any]) -> float:
    try:
        attempt()
    except (OSError, KeyError):
        return 0.0
    return 1.0
