"""What runs in a decoder process; see ``_isolated``, its other side."""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.uid import UID

from radserve.dicom._codecs import decode_here
from radserve.dicom._isolated import HEADER, IDLE_S, LIMIT_BYTES, LIMIT_WALL_S, OUT_OF_MEMORY, READY
from radserve.dicom._memory import Allocations

if TYPE_CHECKING:
    from typing import BinaryIO


def main() -> None:
    """Answer requests until there are none for a minute, or no one is left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller's affair: it ends this process by itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what decoders print must not become an answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    requests = sys.stdin.buffer
    _send(answers, READY)
    try:
        while select.select([requests], [], [], IDLE_S)[0] and _answer(requests, answers):
            pass
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _answer(requests: BinaryIO, answers: BinaryIO) -> bool:
    """Decode one frame; False where the caller has gone."""
    header = requests.read(HEADER.size)
    if len(header) < HEADER.size:
        return False
    number, text_bytes, data_bytes = HEADER.unpack(header)
    request = json.loads(requests.read(text_bytes))
    data = requests.read(data_bytes)
    # The kernel keeps the time: it ends decoders that no signal handler of Python's would reach.
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    begin_s = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(begin_s + request["limit_cpu_s"]), most))
    signal.alarm(LIMIT_WALL_S)
    answer: dict[str, Any]
    allocations = Allocations()
    try:
        frame = decode_here(data, UID(request["syntax"]), request["decoder"], request["options"])
    except Exception as error:  # noqa: BLE001 - whatever the decoders raise, the frame cannot be used
        kind = MemoryError if allocations.failed(error) else type(error)
        answer, pixels = {"error": kind.__name__}, memoryview(b"")
    else:
        stored = np.ascontiguousarray(frame.stored)
        pixels = stored.reshape(-1).view(np.uint8).data
        answer = {
            "dtype": stored.dtype.str,
            "shape": stored.shape,
            "photometric_interpretation": frame.photometric_interpretation,
            "bits_stored": frame.bits_stored,
            "taken_cpu_s": time.process_time() - begin_s,
        }
    signal.alarm(0)
    text = json.dumps(answer).encode()
    _send(answers, HEADER.pack(number, len(text), len(pixels)), text, pixels)
    return True


def _send(answers: BinaryIO, *parts: bytes | memoryview) -> None:
    answers.writelines(parts)
    answers.flush()
