"""Models behind Triton against ONNX Runtime in process, on a GPU or (``--device cpu``) to see that the benchmark works.

What was measured is kept, model by model, in ``--records``; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.gpu import bare, tables
from bench.gpu.served import Sample, Served, alone, difference, graph_of
from bench.gpu.watch import machine, watched

from radserve.errors import InputError, RadserveError
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results-gpu.md"
MODELS = "chest_xray,densenet,ct_lesion,unet,ecg_rhythm,report_triage,report_impression"
LAYERS = "layers"
LAYER_BATCHES = (1, 8, 64)
BUSY = 512  # inputs in flight that keep any device at work
WAIT_S = 0.25  # of a slow model, no more are in flight than it answers in this time
START_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked and not known yet; 0 if nothing went wrong."""
    asked = _parser().parse_args(arguments)
    try:
        graph = graph_of(HERE.parents[2] / "model_repository", "chest_xray")
        bare.check_device(asked.device, graph)
        _measure(asked, time.monotonic())
    except RadserveError as error:
        print(f"measure.py: {error}", file=sys.stderr)  # noqa: T201 - the answer
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown; default: %(default)s")
    parser.add_argument("--records", type=Path, help="what was measured so far; default: OUT with the suffix .jsonl")
    parser.add_argument("--bundle", type=Path, default=HERE / ".bundle" / "models", help="what prepare.py made")
    parser.add_argument("--models", type=_words, default=_words(f"{MODELS},{LAYERS}"), help="default: all of them")
    parser.add_argument("--precisions", type=_words, default=("fp32", "fp16"))
    parser.add_argument("--batches", type=_numbers, default=(1, 16, 64), help="inputs in each request")
    parser.add_argument("--instances", type=int, default=2, help="of each graph, and sessions in process")
    parser.add_argument("--cuda", type=_option, action="append", default=[], metavar="KEY=VALUE", help="CUDA's options")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--until", type=float, default=float("inf"), help="begin no model after so many seconds")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _option(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")  # noqa: EM102, TRY003 - argparse's way
    return key, value


def _measure(asked: argparse.Namespace, began: float) -> None:
    records = asked.records or asked.out.with_suffix(".jsonl")
    known = [json.loads(line) for line in records.read_text().splitlines()] if records.is_file() else []
    options = ", ".join([f"{asked.instances} instances", *(f"{key}={value}" for key, value in asked.cuda)])
    done = {(record["model"], record["precision"], record["options"]) for record in known if record["kind"] == "model"}
    wanted = [
        (model, precision)
        for model in asked.models
        for precision in (asked.precisions if model != LAYERS else ("fp32",))
        if (asked.bundle / precision / model).is_dir() or precision == "fp32"
    ]
    known.append({"kind": "machine", "text": machine(asked.device)})
    for model, precision in wanted:
        if (model, precision, options) in done or (model == LAYERS and any(one["kind"] == LAYERS for one in known)):
            continue
        if time.monotonic() - began > asked.until:
            print(f"time is over: run the same command again for {model} in {precision} and what follows")  # noqa: T201
            break
        print(f"{time.monotonic() - began:.0f} s: {model} in {precision}", flush=True)  # noqa: T201 - progress
        known.append(_layers(asked) if model == LAYERS else _model(asked, model, precision) | {"options": options})
        records.write_text("".join(f"{json.dumps(record)}\n" for record in known))
        asked.out.write_text(tables.page(known), encoding="utf-8")


def _model(asked: argparse.Namespace, model: str, precision: str) -> dict[str, Any]:
    """Measure one model in one precision."""
    cuda, instances, device = dict(asked.cuda), asked.instances, asked.device
    graph, exact = graph_of(asked.bundle / precision, model), graph_of(asked.bundle / "fp32", model)
    with tempfile.TemporaryDirectory() as folder:
        repository = alone(
            *(asked.bundle / precision, model, Path(folder)), device=device, instances=instances, cuda=cuda
        )
        # Unlike its copy, what was published says itself how its graphs run: the manifests are of that.
        with EmbeddedServer(repository, verify=False, supervise=False, start_timeout_s=START_S) as server:
            served, most = Served(server, model), max(asked.batches)
            reference = bare.open_session(exact, "cpu", {})
            inputs, outputs = (
                [entry.name for entry in side] for side in (reference.get_inputs(), reference.get_outputs())
            )
            feeds = {batch: served.feeds(batch, inputs) for batch in asked.batches}
            want = dict(zip(outputs, reference.run(None, feeds[most]), strict=True))
            told = difference(served.answers(most), want)
            rows = _in_turns(asked, _ways(asked, served, bare.Bare(graph, device, cuda, instances), feeds))
    return {
        "kind": "model",
        "model": model,
        "precision": precision,
        "turns": asked.turns,
        "seconds": asked.seconds,
        "difference": told,
        "nodes": bare.nodes_on_device(graph, device, feeds[most]),
        "rows": rows,
    }


def _ways(
    asked: argparse.Namespace, served: Served, inside: bare.Bare, feeds: Mapping[int, bare.Tensors]
) -> list[tuple[dict[str, Any], Callable[[], Sample]]]:
    """What is measured of a model, each with a function that measures it once."""
    ways: list[tuple[dict[str, Any], Callable[[], Sample]]] = []

    def add(how: str, batch: int, in_flight: int | None, measure: Callable[[], Sample], *, is_limit: bool) -> None:
        ways.append(({"how": how, "batch": batch, "in_flight": in_flight, "is_limit": is_limit}, measure))

    def within(rate: Callable[..., float], batch: int) -> Sample:
        return Sample(rate(feeds[batch], asked.seconds) * batch)

    for batch in asked.batches:
        add("ONNX Runtime in process", batch, None, partial(within, inside.rate, batch), is_limit=True)
    most = max(asked.batches)
    add("the same, tensors on the device", most, None, partial(within, inside.bound_rate, most), is_limit=False)
    add("Triton, gRPC", 1, 1, partial(served.load, 1, 1, asked.seconds), is_limit=False)
    for batch in asked.batches:
        enough = max(8, min(128, BUSY // batch))
        runs_per_s = inside.rate(feeds[batch], asked.seconds / 4)
        in_flight = max(2 * asked.instances, min(enough, round(runs_per_s * WAIT_S)))
        add("Triton, gRPC", batch, in_flight, partial(served.load, batch, in_flight, asked.seconds), is_limit=False)
    return ways


def _in_turns(
    asked: argparse.Namespace, ways: Sequence[tuple[dict[str, Any], Callable[[], Sample]]]
) -> list[dict[str, Any]]:
    """All ways in turns, so that what else the machine does meets all alike; the first turn only warms up."""
    rows = [
        {**what, "rates": [], "p50": [], "p99": [], "n": 0, "busy": [], "memory_mib": []} for what, _measure in ways
    ]
    for turn in range(-1, asked.turns):
        for place in range(len(ways)):
            index = (place + turn) % len(ways)
            with watched() as use:
                sample = ways[index][1]()
            if turn < 0:
                continue
            row = rows[index]
            row["rates"].append(sample.rate)
            row["p50"].append(sample.p50)
            row["p99"].append(sample.p99)
            row["n"] += sample.n
            row["busy"].append(use.busy)
            row["memory_mib"].append(use.memory_mib)
    return rows


def _layers(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure recurrent layers, as exported and as loops."""
    runs, rows = max(3, round(20 * asked.seconds)), []
    for native in sorted((asked.bundle / "recurrent").glob("*.native.onnx")):
        loop = native.with_name(native.name.replace(".native.", ".loop."))
        graphs = {"native": native, "loop": loop}
        sessions = {name: bare.open_session(path, asked.device, dict(asked.cuda)) for name, path in graphs.items()}
        for batch in LAYER_BATCHES:
            feeds = {name: bare.sequences(session, batch) for name, session in sessions.items()}
            taken: dict[str, list[float]] = {name: [] for name in sessions}
            for turn in range(-3, runs):
                for name, session in sessions.items():
                    found = bare.milliseconds(session, feeds[name], 1)
                    taken[name] += found if turn >= 0 else []
            rows.append(
                {"layer": native.name.removesuffix(".native.onnx"), "batch": batch}
                | {name: median(found) for name, found in taken.items()}
                | {
                    f"{name}_nodes": bare.nodes_on_device(path, asked.device, feeds[name])
                    for name, path in graphs.items()
                }
            )
    if not rows:
        msg = f"there are no layers in {asked.bundle / 'recurrent'}: run tests/bench/gpu/prepare.py"
        raise InputError(msg)
    return {"kind": LAYERS, "runs": runs, "rows": rows}
