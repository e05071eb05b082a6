"""How long decoders may take: for one frame, and for all that are asked for at once."""

from __future__ import annotations

LIMIT_CPU_S = 4.0
# The slowest decoder (OpenJPEG) reads twice as many bytes in a second, and makes several times as many samples of few.
BYTES_A_SECOND = 2**22
SAMPLES_A_SECOND = 2**24


class Budget:
    """Processor time for the frames of one file, or of all files of a series.

    A frame may take 4 s more than one of its size does. What it takes of them
    the frames after it have less: those of a file that is made to stall cannot
    each take their 4 s.
    """

    def __init__(self) -> None:
        self._owed_s = 0.0

    @property
    def left_s(self) -> float:
        """How much longer than one of its size the next frame may take; not positive where there must be none."""
        return LIMIT_CPU_S - self._owed_s

    def spend(self, taken_s: float, *, usual_s: float) -> None:
        """Count a frame; what it did not need is not saved up."""
        self._owed_s = max(0.0, self._owed_s + taken_s - usual_s)


def usual_s(data_bytes: int, samples: int) -> float:
    """Processor time that a frame takes at most unless it is made to stall."""
    return data_bytes / BYTES_A_SECOND + samples / SAMPLES_A_SECOND
