"""Damaged copies of the files that pydicom ships, by seed; read in a process of their own and measured.

As a program, with arguments FIRST LAST, it reads mutants FIRST to LAST - 1 and
prints one JSON object with what became of them; with FILE..., one for each.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from support.commands import program
from support.datasets import TEST_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGEST_BYTES = 300_000
# Where a decoder's own trouble begins, and the attributes that it relies on.
CODESTREAMS = (b"\xff\x4f\xff\x51", b"\xff\xd8\xff")
IMAGE_ATTRIBUTES = (0x0002, 0x0004, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103)
WILD = (0, 1, 2, 3, 8, 16, 255, 4096, 32767, 65535)


@dataclass
class Measured:
    """What reading a range of mutants gave.

    Attributes:
        outcomes: Names of errors, or "read", and how often.
        slowest_s: Most processor time for one mutant, decoder processes included.
        slowest: Its seed.
        largest_bytes: Most memory that the reading process has held.
        decoder_bytes: Most memory that a decoder process that is left has held.
    """

    outcomes: dict[str, int]
    slowest_s: float
    slowest: int
    largest_bytes: int
    decoder_bytes: int


@cache
def sources() -> tuple[tuple[str, bytes], ...]:
    """Names and contents; compressed files count four times, since their decoders are not Python's."""
    found = []
    for path in sorted(TEST_FILES.rglob("*.dcm")):
        if path.stat().st_size > LARGEST_BYTES:
            continue
        data = path.read_bytes()
        compressed = b"1.2.840.10008.1.2.4." in data[:2000] or b"1.2.840.10008.1.2.5" in data[:2000]
        found += [(path.name, data)] * (4 if compressed else 1)
    return tuple(found)


def mutant(seed: int) -> tuple[str, bytes]:
    """One damaged file, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    name, data = sources()[seed % len(sources())]
    damaged = bytearray(data)
    # Most in the codestream's header: other damage seldom gets as far as a decoder.
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        damages = (_flip, _flip_in_header, _lie, _cut, _repeat, _lengthen)
        chance.choices(damages, weights=(4, 8, 1, 1, 1, 1))[0](damaged, chance)
    return name, bytes(damaged)


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(132, len(data))] = chance.choice((0, 255, chance.randrange(256)))


def _flip_in_header(data: bytearray, chance: random.Random) -> None:
    start = max(132, *(data.find(mark) for mark in CODESTREAMS))
    for _ in range(chance.randint(1, 6)):
        place = min(len(data) - 1, start + chance.randrange(200))
        data[place] = chance.choice((0, 255, chance.randrange(256)))


def _lie(data: bytearray, chance: random.Random) -> None:
    """Another value for an attribute of the Image Pixel module, in the data set alone."""
    tag = struct.pack("<HH", 0x0028, chance.choice(IMAGE_ATTRIBUTES))
    place = data.find(tag)
    if 0 <= place < len(data) - 10:
        struct.pack_into("<H", data, place + 8, chance.choice(WILD))


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(200, len(data)) :]
    data += bytes(200 - min(200, len(data)))


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(132, len(data))
    piece = data[start : start + chance.choice((1, 2, 8, 64, 1000))]
    place = chance.randrange(132, len(data))
    data[place:place] = piece * chance.choice((1, 1, 50))


def _lengthen(data: bytearray, chance: random.Random) -> None:
    """A length of the file's own that is no longer true, or means undefined."""
    places = [place for vr in (b"OW\0\0", b"OB\0\0", b"SQ\0\0", b"UN\0\0") if (place := data.rfind(vr)) > 0]
    if places and (place := chance.choice(places)) < len(data) - 8:
        length = chance.choice((0, 2, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
        struct.pack_into("<I", data, place + 4, length)


def measure(first: int, last: int) -> Measured:
    """Read mutants in a process of their own.

    Raises:
        AssertionError: One of them killed it.
    """
    return _run(str(first), str(last))[0]


def measure_files(paths: list[Path]) -> list[Measured]:
    """Read files in a process of their own, one after the other; memory is the most so far.

    Raises:
        AssertionError: One of them killed it.
    """
    return _run(*map(str, paths))


def _run(*arguments: str) -> list[Measured]:
    command = program("support.mutations", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - Python itself
    assert done.returncode == 0, (done.returncode, done.stdout[-200:], done.stderr[-2000:])
    return [Measured(**json.loads(line)) for line in done.stdout.splitlines()]


def attempt(read: Callable[[], object]) -> str:
    """The name of the error that reading ends with, or "read"; only radserve's own errors pass."""
    from radserve.errors import RadserveError  # noqa: PLC0415 - making mutants needs no radserve

    try:
        read()
    except RadserveError as error:
        return type(error).__name__
    return "read"


def processor_time_s() -> float:
    """Of this process, its children that have ended, and its decoder processes."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for pid in _decoders():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def largest_bytes() -> int:
    """Most memory that this process has held; its ru_maxrss begins with what the one that started it held."""
    return _peak_bytes("self")


def decoder_bytes() -> int:
    """Most memory that a decoder process that is left has held."""
    return max((_peak_bytes(str(pid)) for pid in _decoders()), default=0)


def _peak_bytes(process: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _decoders() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(pid) for pid in children.split()]


def read_all(files: Iterable[tuple[int, str, bytes]]) -> Measured:
    """Read each, by number, name and content."""
    from radserve.dicom import read_image, read_waveform  # noqa: PLC0415 - as above

    outcomes: dict[str, int] = {}
    slowest_s, slowest = 0.0, -1
    for number, name, data in files:
        read = partial(read_waveform, data) if "waveform" in name else partial(read_image, data, frame=0)
        before = processor_time_s()
        outcome = attempt(read)
        took = processor_time_s() - before
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if took > slowest_s:
            slowest_s, slowest = took, number
    return Measured(outcomes, slowest_s, slowest, largest_bytes(), decoder_bytes())


def main() -> None:
    """See the module."""
    first, *others = sys.argv[1:]
    if first.isdecimal():
        measured = [read_all((seed, *mutant(seed)) for seed in range(int(first), int(others[0])))]
    else:
        measured = [read_all([(0, "", Path(path).read_bytes())]) for path in sys.argv[1:]]
    sys.stdout.writelines(json.dumps(asdict(each)) + "\n" for each in measured)


if __name__ == "__main__":
    main()
