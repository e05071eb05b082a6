"""Training of the impression network and its tokenizer, and the trained files that are committed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from radserve.errors import SpecError
from radserve_export.datasets import Dataset
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.convert import convert
from radserve_export.from_keras.training import report_impression as training
from radserve_export.from_keras.training.report_impression import build_network, build_tokenizer, train
from radserve_export.graphs import GENERATED_IDS, NETWORK_INPUT
from radserve_export.graphs.checked import Chain
from radserve_export.reference import conversion_of
from radserve_export.spec import Spec, load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split, generate
from radserve_export.tokenizer import TextTokenizer, read_tokenizer

EXPORT = Path(__file__).parents[2] / "export"
SPEC = load_spec(EXPORT / "specs" / "report_impression.yaml")
TINY = msgspec.structs.replace(SPEC, training=Generated(generator="report_impression", samples=400, seed=5))
TOKENIZER_FILE = EXPORT / "trained" / "report_impression.tokenizer.json"
MODEL_FILE = EXPORT / "trained" / "report_impression.keras"
WORKED_OUT = {
    "In the left kidney there is a cyst, which was 20 mm and is now 31 mm. The heart is not enlarged. No nodule.": (
        "31 mm cyst in the left kidney."
    ),
    "There is no evidence of pneumothorax. A small pleural effusion is seen on the right. The bones are intact.": (
        "Small right pleural effusion."
    ),
    "The left pneumothorax has resolved. The heart is normal in size.": "No acute abnormality.",
    "右肺下叶见一结节，大小约12mm。未见胸腔积液。左侧见少量气胸。": "1. 右肺下叶结节，约12mm。2. 左侧少量气胸。",
    "心影不大。原左侧气胸已吸收。": "未见明显异常。",
}


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def words() -> TextTokenizer:
    return read_tokenizer(TOKENIZER_FILE)


@pytest.fixture(scope="module")
def committed() -> keras.Model:
    return keras.models.load_model(MODEL_FILE, safe_mode=True, compile=False)


@pytest.fixture(scope="module")
def graph(committed: keras.Model, words: TextTokenizer) -> Chain:
    """The graph that writes whole impressions."""
    return Chain([convert(committed, conversion_of(SPEC, words), source_sha256="0").graph])


def written(graph: Chain, words: TextTokenizer, findings: list[str]) -> list[str]:
    return words.texts(graph({NETWORK_INPUT: words.token_ids(findings, 192)})[GENERATED_IDS])


@pytest.mark.parametrize("seed", [20261122, 4711])
def test_committed_model_writes_impressions_that_it_was_not_trained_on(
    graph: Chain, words: TextTokenizer, seed: int
) -> None:
    samples = list(generate("report_impression", 400, seed=seed, split=Split.TEST))
    texts = written(graph, words, [str(sample.source) for sample in samples])
    assert np.mean([text == sample.expected for text, sample in zip(texts, samples, strict=True)]) >= 0.95


def test_committed_model_writes_the_impressions_worked_out_by_hand(graph: Chain, words: TextTokenizer) -> None:
    assert dict(zip(WORKED_OUT, written(graph, words, list(WORKED_OUT)), strict=True)) == WORKED_OUT


def test_of_a_text_without_words_it_says_nothing(graph: Chain, words: TextTokenizer) -> None:
    assert written(graph, words, [""]) == [""]


def test_committed_model_is_the_plain_architecture_without_optimizer(
    committed: keras.Model, words: TextTokenizer
) -> None:
    wanted = build_network(words.vocabulary)
    for name in ("encoder", "decoder"):
        models = [model.get_layer(name) for model in (committed, wanted)]
        kinds = [[type(layer) for layer in model.layers] for model in models]
        assert kinds[0] == kinds[1]
        shapes = [[weight.shape for weight in model.get_weights()] for model in models]
        assert shapes[0] == shapes[1]
    assert MODEL_FILE.stat().st_size < min(3e6, 1.2 * 4 * wanted.count_params())


@pytest.mark.full
def test_committed_tokenizer_is_what_the_spec_builds() -> None:
    assert build_tokenizer(SPEC).to_str(pretty=True) == TOKENIZER_FILE.read_text(encoding="utf-8")


@settings(max_examples=300)
@given(text=st.text(max_size=80))
def test_any_text_comes_back_exactly(words: TextTokenizer, text: str) -> None:
    assert words.texts(words.token_ids([text], 1000)) == [text]


def test_all_generated_reports_fit_into_the_model(words: TextTokenizer) -> None:
    samples = list(generate("report_impression", 2000, seed=8, split=Split.TEST))
    tokenizer = Tokenizer.from_str(words.content.decode())
    assert max(len(tokenizer.encode(str(sample.source)).ids) for sample in samples) <= 192
    assert max(len(tokenizer.encode(str(sample.expected)).ids) for sample in samples) < 96


@pytest.mark.full
def test_a_tiny_training_learns_and_reports_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_EPOCHS", 6)
    steps: list[tuple[int, int]] = []
    model = train(TINY, None, lambda _, done, total: steps.append((done, total)))
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    ids = build_tokenizer(TINY).get_vocab()
    reports = training._reports(training._plans(TINY)[0])[:100]
    source, target = training._ids(build_tokenizer(TINY), TINY, reports, ids["[END]"])
    read = np.concatenate([np.full((len(target), 1), ids["[START]"], np.int32), target[:, :-1]], axis=1)
    right = np.asarray(model([source, read])).argmax(-1) == target
    assert right[target > 0].mean() > 0.6


def test_own_data_are_refused() -> None:
    data = Dataset(x=np.zeros((1, 1), np.int32), y=np.zeros(1, np.int64))
    with pytest.raises(SpecError, match="generated reports only"):
        train(SPEC, data, silent)


@pytest.mark.parametrize("missing", ["training", "generation", "input"])
def test_a_spec_that_is_not_one_of_a_generator_to_train_is_refused(missing: str) -> None:
    changes: dict[str, None] = {missing: None}
    spec: Spec = msgspec.structs.replace(SPEC, **changes)
    with pytest.raises(SpecError, match="a training and a generation block"):
        train(spec, None, silent)
