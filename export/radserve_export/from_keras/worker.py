"""The process that reads a model file: ``python -m radserve_export.from_keras.worker SETTINGS``.

It confines itself before it imports anything that a model file reaches,
answers what its parent asks through the pipes it was started with, and ends
with its parent.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from radserve_export.sandbox.confine import confine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.network import Network
    from radserve_export.sandbox.messages import Answer, Convert, Request, Run

_EXHAUSTED = ("MemoryError", "ResourceExhaustedError")


def main() -> None:
    """Answer requests until the parent closes its end."""
    settings = json.loads(sys.argv[1])
    trust = settings.pop("trust")
    try:
        confine(**settings)
        confined = True
    except OSError:
        confined = False
    requests, answers = _pipes()

    from radserve_export.sandbox import messages  # noqa: PLC0415 - nothing before the process is confined

    worker = _Worker()
    while content := _read(requests):
        request = messages.decode_request(content)
        answer = worker.answer(request) if confined or trust else messages.Failed(kind="unconfined")
        _write(answers, messages.encode(answer))
    os._exit(0)  # without waiting for TensorFlow's threads


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The parent's pipes; what libraries print goes where the standard error goes."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _read(requests: IO[bytes]) -> bytes:
    """The next request; nothing at the end."""
    return requests.read(int.from_bytes(requests.read(8), "big"))


def _write(answers: IO[bytes], content: bytes) -> None:
    answers.write(len(content).to_bytes(8, "big"))
    answers.write(content)
    answers.flush()


class _Worker:
    """Holds the one model that this process is there for."""

    def __init__(self) -> None:
        self._network: Network | None = None

    def answer(self, request: Request) -> Answer:
        """Do what is asked, and say it if that fails."""
        from radserve.errors import (  # noqa: PLC0415 - as in main
            ExportError,
            MissingExtraError,
            SpecError,
            UntrustedModelError,
        )
        from radserve_export.sandbox import messages  # noqa: PLC0415 - as in main

        kinds: dict[type[ExportError], messages.Kind] = {
            SpecError: "SpecError",
            UntrustedModelError: "UntrustedModelError",
        }
        try:
            return self._convert(request) if isinstance(request, messages.Convert) else self._run(request)
        # A model raises whatever it likes.
        except Exception as error:  # noqa: BLE001 - the parent raises it
            if _is_exhausted(error):
                return messages.Failed(kind="memory")
            if isinstance(error, MissingExtraError):
                return messages.Failed(kind="MissingExtraError")
            if isinstance(error, ExportError):
                return messages.Failed(kind=kinds.get(type(error), "ConversionError"), message=str(error))
            first = str(error).strip().partition("\n")[0]
            return messages.Failed(kind="ConversionError", message=f"{type(error).__name__}: {first}")

    def _convert(self, request: Convert) -> Answer:
        from radserve_export.from_keras.load import load_copy  # noqa: PLC0415 - as in main
        from radserve_export.sandbox import messages  # noqa: PLC0415 - as in main

        model = load_copy(Path(request.path), request.custom_objects)

        from radserve_export.from_keras.convert import convert  # noqa: PLC0415 - a file that is refused does not wait for it

        with _warnings() as warned:
            # The hash is the parent's to say.
            self._network = convert(model, request.conversion, source_sha256="")
        graphs = {messages.NETWORK: self._network.graph} | {
            name: part.graph for name, part in self._network.parts.items()
        }
        return messages.Converted(
            graphs={name: graph.SerializeToString() for name, graph in graphs.items()},
            vocabulary=self._network.vocabulary,
            tokenizer=self._network.tokenizer,
            tools=self._network.tools,
            notes=_noted(warned),
        )

    def _run(self, request: Run) -> Answer:
        from radserve_export.sandbox import messages  # noqa: PLC0415 - as in main

        if self._network is None:
            raise RuntimeError
        part = self._network.parts[request.part] if request.part else self._network
        return messages.Answered(outputs=messages.pack(part.reference(messages.unpack(request.inputs))))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the exporter warns of meanwhile; the parent shows it to the user, who cannot see this process."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, listener = logging.getLogger("radserve_export"), Listener(logging.WARNING)
    log.addHandler(listener)
    try:
        yield found
    finally:
        log.removeHandler(listener)


def _noted(warned: list[str]) -> tuple[str, ...]:
    """No more, and none longer, than the parent takes."""
    from radserve_export.sandbox.messages import MAX_NOTES  # noqa: PLC0415 - as in main
    from radserve_export.sandbox.text import LONGEST  # noqa: PLC0415 - as in main

    if len(warned) > MAX_NOTES:
        rest = len(warned) - MAX_NOTES + 1
        warned = [*warned[: MAX_NOTES - 1], f"{rest} more warnings like these are not shown"]
    return tuple(one[:LONGEST] for one in warned)


def _is_exhausted(error: BaseException | None) -> bool:
    while error is not None:
        if any(kind.__name__ in _EXHAUSTED for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
