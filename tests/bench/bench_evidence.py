"""What an evidence map costs, and that the plain model does not pay for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.bench_predict import ROUNDS, bare, median_ms
from bench.report import machine, table, write_section

from radserve import Client
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from radserve_server import EmbeddedServer


def test_what_a_map_costs(reference_server: EmbeddedServer) -> None:
    source = next(generate("chest_xray", 1, seed=5, split=Split.TEST)).source
    rows: list[list[float]] = []
    names = ("chest_xray", "chest_xray_evidence")
    with Client(reference_server.grpc_url) as client:
        for name in names:
            model = client.model(name)
            arrays = model.prepare(source)
            predict, served = median_ms(partial(model.predict, source)), median_ms(partial(model.infer, arrays))
            rows.append([predict, served, bare(name, client, source) or 0.0])
    ratios = [with_map / plain for plain, with_map in zip(*rows, strict=True)]
    lines = [
        f"{machine()} Medians of {ROUNDS} single predictions, one at a time, in ms.",
        "",
        *table(
            ("model", "predict", "wire and server", "bare ONNX Runtime"),
            [
                *([f"`{name}`", *(f"{ms:.2f}" for ms in row)] for name, row in zip(names, rows, strict=True)),
                ["ratio", *(f"{ratio:.2f}" for ratio in ratios)],
            ],
        ),
    ]
    write_section("Evidence maps", lines)
