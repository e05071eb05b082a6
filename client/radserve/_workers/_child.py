"""What runs in a worker process: take a step, prepare its input, answer; and again."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radserve._codec import Prepared

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Work for the process that started this one until it ends, or closes the pipe.

    Arguments of the command line: the parent's process id, bytes of memory and seconds for an input.
    """
    parent, memory_bytes, limit_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # What a decoder prints must not get between the messages.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)

    # Here, not above: what is imported counts neither as a failure of the first input nor against its time.
    from radserve._codec import prepare_step  # noqa: PLC0415 - see above
    from radserve._workers._messages import OUT_OF_MEMORY, receive_request, send_answer, too_large  # noqa: PLC0415 - see above
    from radserve.errors import DecodeError, RadserveError  # noqa: PLC0415 - see above

    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold a patient's pixels
    send_answer(answers, None)
    try:
        while True:
            step = receive_request(requests)
            # Unhandled, the signal ends the process in the middle of whatever a decoder does.
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            answer: Prepared | RadserveError
            try:
                answer = prepare_step(step)
            except RadserveError as error:
                answer = error
            except MemoryError:
                answer = too_large(memory_bytes)
            except Exception as error:  # noqa: BLE001 - what it says may quote the file
                msg = f"the input cannot be prepared ({type(error).__name__})"
                answer = DecodeError(msg, is_final=False)
            signal.setitimer(signal.ITIMER_REAL, 0)
            send_answer(answers, answer)
    except (EOFError, BrokenPipeError):
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
