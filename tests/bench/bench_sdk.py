"""Where the time of one prediction goes, of files of a hospital's size.

All stages are timed inside the same call, by standing in for the spans that the
SDK has around them; the server's time is what Triton's own statistics say.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from io import BytesIO
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import tritonclient.grpc as triton
from bench.report import machine, table, write_section

from radserve import Client
from radserve._codec import _flow, _prepare
from radserve.client import _session
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    import pytest

    from radserve import Model
    from radserve_server import EmbeddedServer

ROUNDS, WARM_UP = 200, 20


def source_of(model: str) -> bytes:
    source = next(generate(model, 1, seed=5, split=Split.TEST)).source
    assert isinstance(source, bytes)
    return source


def enlarged(source: bytes, rows: int, columns: int, bits: int) -> bytes:
    """The same image on a scanner's grid."""
    dataset = pydicom.dcmread(BytesIO(source))
    pixels = dataset.pixel_array
    scale = -(-rows // pixels.shape[0]), -(-columns // pixels.shape[1])
    whole = np.kron(pixels, np.ones(scale, pixels.dtype))[:rows, :columns]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelData = np.ascontiguousarray(whole).tobytes()
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


class Stages:
    """Stands in for ``span``: seconds of each stage, call by call."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)

    def __call__(self, work: str, **_: object) -> Stages._Timed:
        return Stages._Timed(self, work)

    class _Timed:
        def __init__(self, stages: Stages, work: str) -> None:
            self._stages, self._work = stages, work

        def __enter__(self) -> None:
            self._begin = perf_counter()

        def __exit__(self, *_: object) -> None:
            taken = perf_counter() - self._begin
            if threading.current_thread() is threading.main_thread():  # the server's supervisor asks, too
                self._stages.taken[self._work].append(taken)


def watched(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """The stages of all calls from now on."""
    stages = Stages()
    for module in (_prepare, _flow, _session):
        monkeypatch.setattr(module, "span", stages)
    monkeypatch.setattr(_flow, "is_told", lambda: True)
    return stages


def server_s(url: str, name: str) -> tuple[int, float]:
    """Requests that a model answered, and the seconds that they took inside the server."""
    with triton.InferenceServerClient(url) as client:
        (found,) = client.get_inference_statistics(name).model_stats
    return found.inference_stats.success.count, found.inference_stats.success.ns / 1e9


def stages_of(model: Model[Any], source: bytes, stages: Stages, url: str) -> list[str]:
    """Medians of each stage, in ms, and what went over the wire."""
    for _ in range(WARM_UP):
        model.predict(source)
    stages.taken.clear()
    count, inside = server_s(url, model.name)
    for _ in range(ROUNDS):
        model.predict(source)
    later, inside_later = server_s(url, model.name)
    server = (inside_later - inside) / (later - count)  # now and then its supervisor asks, too
    of = {work: np.array(seconds) for work, seconds in stages.taken.items()}
    known = of["read"] + of["decode"] + of["preprocess"] + of["infer"]
    rest = float(np.median(of["predict"] - known))
    told = [float(np.median(of[work])) for work in ("predict", "read", "decode", "preprocess")]
    cells = [*told, float(np.median(of["infer"])) - server, server, rest]
    sent = sum(array.nbytes for array in model.prepare(source).values())
    dataset = pydicom.dcmread(BytesIO(source))
    floats = 4 * int(dataset.Rows) * int(dataset.Columns) if "Rows" in dataset else 2 * sent
    return [*(f"{seconds * 1e3:.2f}" for seconds in cells), f"{sent:,}", f"{floats:,}", f"{floats / sent:.0f}"]


def test_where_the_time_of_a_hospitals_files_goes(
    reference_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = watched(monkeypatch)
    files = {
        "CT slice, 512 x 512": ("ct_hemorrhage", enlarged(source_of("ct_hemorrhage"), 512, 512, 16)),
        "DX image, 2048 x 2500, 12 bits": ("chest_xray", enlarged(source_of("chest_xray"), 2048, 2500, 12)),
        "ECG, 12 leads, 10 s": ("ecg_rhythm", source_of("ecg_rhythm")),
    }
    with Client(reference_server.grpc_url) as client:
        rows = [
            [name, *stages_of(client.model(model), source, stages, reference_server.grpc_url)]
            for name, (model, source) in files.items()
        ]
    stage_names = ("predict", "read", "decode", "preprocess", "wire", "server", "SDK, the rest")
    lines = [
        f"{machine()} Medians of {ROUNDS} single predictions, one at a time, in ms; client and server on",
        "the same cores. Stages are timed inside the same calls; the server's share is the mean of Triton's own",
        "statistics; bytes are those of the tensors, against the source's samples as float32 (of the ECG: the wire's).",
        "",
        *table(("file", *stage_names, "bytes sent", "as float32", "ratio"), rows),
    ]
    write_section("A hospital's files", lines)
