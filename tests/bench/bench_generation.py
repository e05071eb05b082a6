"""A text from one call, against one call for each of its tokens.

Beside the served model stands the same decoder as a model of its own, for a
client that decodes by itself: it sends the last token, what the encoder gave and
the states, gets logits and new states back, and chooses.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from bench.report import machine, table, write_section

from radserve import Client, GeneratedText
from radserve_export import pipeline
from radserve_export.from_keras.load import load_model
from radserve_export.from_keras.signature import names_of
from radserve_export.spec import load_spec
from radserve_export.synthetic import Split, generate
from radserve_export.tokenizer import read_tokenizer
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from radserve import Model
    from radserve_export.tokenizer import TextTokenizer

SPEC = Path(__file__).resolve().parents[2] / "export" / "specs" / "report_impression.yaml"
REPORTS, WARM_UP, BEAMS = 60, 5, 4


class Names:
    """What a Keras model's inputs and outputs are called when it is served by itself, by the keys of its dicts."""

    def __init__(self, model: Any) -> None:
        inputs, outputs = names_of(model)
        keys = sorted(model.input) if isinstance(model.input, dict) else [""]
        self.inputs = dict(zip(keys, inputs, strict=True))
        self.outputs = dict(zip(sorted(model.output), outputs, strict=True))


class TokenByToken:
    """Decodes in the client."""

    def __init__(self, client: Client, names: dict[str, Names], words: TextTokenizer) -> None:
        self._models: dict[str, Model[Any]] = {name: client.model(name) for name in names}
        self._names = names
        self._words = words
        plan = load_spec(SPEC).generation
        assert plan is not None
        self._plan, self._ids = plan, {token: words.id_of(token) for token in (plan.start, plan.end)}

    def _ask(self, name: str, feeds: dict[str, Any]) -> dict[str, Any]:
        names = self._names[name]
        answers = self._models[name].infer({names.inputs[key]: value for key, value in feeds.items()})
        return {key: answers[output] for key, output in names.outputs.items()}

    def write(self, text: str) -> tuple[str, int]:
        """The text and its number of tokens."""
        source = self._words.token_ids([text], 192)
        feeds = self._ask("encoder", {"": source[:, : max(1, int((source > 0).sum()))]})
        word, written = self._ids[self._plan.start], []
        for _ in range(self._plan.max_tokens):
            answers = self._ask("decoder", {**feeds, "target_ids": np.array([[word]], np.int32)})
            word = int(answers.pop("logits")[0, -1].argmax())
            if word == self._ids[self._plan.end]:
                break
            written.append(word)
            feeds |= answers
        return self._words.texts(np.array([written], np.int32))[0], len(written) + 1


def timed(call: Any, *arguments: Any) -> tuple[float, Any]:
    began = perf_counter()
    answer = call(*arguments)
    return (perf_counter() - began) * 1e3, answer


def with_beams(folder: Path) -> Path:
    """The same spec, but for the search."""
    spec = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    spec |= {"name": "with_beams", "generation": spec["generation"] | {"beams": BEAMS}}
    spec |= {key: str((SPEC.parent / spec[key]).resolve()) for key in ("model", "tokenizer")}
    spec.pop("evaluation", None)
    path = folder / "with_beams.yaml"
    path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    return path


def test_one_call_against_one_call_a_token(tmp_path: Path) -> None:
    pipeline.export(SPEC, tmp_path / "models")
    pipeline.export(with_beams(tmp_path), tmp_path / "models")
    trained, _ = load_model(SPEC.parent / load_spec(SPEC).model)
    names = {}
    for part in ("encoder", "decoder"):
        model = trained.get_layer(part)
        names[part] = Names(model)
        model.save(tmp_path / f"{part}.keras")
        spec = {"name": part, "task": "tensors", "model": f"{part}.keras", "parity": {"atol": 1e-4}}
        (tmp_path / f"{part}.yaml").write_text(yaml.safe_dump(spec))
        pipeline.export(tmp_path / f"{part}.yaml", tmp_path / "models")
    words = read_tokenizer(SPEC.parent / str(load_spec(SPEC).tokenizer))
    one, many, beams, tokens = [], [], [], []
    with EmbeddedServer(tmp_path / "models") as server, Client(server.grpc_url) as client:
        served, searched = (client.model(name, GeneratedText) for name in ("report_impression", "with_beams"))
        by_token = TokenByToken(client, names, words)
        for number, sample in enumerate(generate("report_impression", REPORTS + WARM_UP, seed=77, split=Split.TEST)):
            once, result = timed(served.predict, sample.source)
            search, _ = timed(searched.predict, sample.source)
            loop, (text, count) = timed(by_token.write, sample.source)
            assert result.text == text
            if number >= WARM_UP:
                one.append(once)
                many.append(loop)
                beams.append(search)
                tokens.append(count)
    ratio = statistics.median(b / a for a, b in zip(one, many, strict=True))
    write_section(
        "Text generation",
        [
            f"{machine()} `report_impression`, one report after the other, the same texts both ways,",
            f"{statistics.mean(tokens):.1f} tokens on average. Medians in ms; the ratio is that of each report.\n",
            *table(
                ("n", "one call", f"one call, {BEAMS} beams", "one call a token, the client decodes", "ratio"),
                [(REPORTS, *(f"{statistics.median(taken):.1f}" for taken in (one, beams, many)), f"{ratio:.1f}")],
            ),
        ],
    )
    assert ratio > 1
