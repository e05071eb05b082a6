"""Training of the report network and its tokenizer, and the trained files that are committed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training import Dataset
from radserve_export.from_keras.training import report_triage as training
from radserve_export.from_keras.training.report_triage import build_network, build_tokenizer, encode, train
from radserve_export.spec import Spec, load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split, generate

EXPORT = Path(__file__).parents[2] / "export"
SPEC = load_spec(EXPORT / "specs" / "report_triage.yaml")
TINY = msgspec.structs.replace(SPEC, training=Generated(generator="report_triage", samples=600, seed=5))
TOKENIZER_FILE = EXPORT / "trained" / "report_triage.tokenizer.json"
MODEL_FILE = EXPORT / "trained" / "report_triage.keras"
MAX_TOKENS = 256

LONG_NEGATIVE = (
    "Chest radiograph, PA and lateral. Clinical history: fall from height, rule out pneumothorax. Comparison is made"
    " with the radiograph of last week. The heart is not enlarged. The lungs are clear without consolidation. There is"
    " a small left pleural effusion and mild basal atelectasis. No pneumothorax is seen. No free air under the"
    " diaphragm. The bones are intact. Impression: Small left pleural effusion. No evidence of pneumothorax or bowel"
    " perforation."
)
HIDDEN_POSITIVE = (
    "CT of the head without contrast. No subdural haematoma. No subarachnoid haemorrhage. No midline shift. The"
    " ventricles are normal. There is a small acute intracranial haemorrhage in the left frontal lobe. No skull"
    " fracture. The sinuses are clear."
)
HAND_WRITTEN = {
    "No evidence of pneumothorax.": False,
    "Large left pneumothorax.": True,
    "未见气胸。": False,
    "左侧气胸。": True,
    "The previously seen pneumothorax has resolved.": False,
    "There is a small apical pneumothorax on the right.": True,
    "Pulmonary embolism cannot be excluded.": True,
    "Clinical history: rule out aortic dissection. The aorta is normal in calibre.": False,
    "Small right pleural effusion. No pneumothorax.": False,
    "There is free air under the diaphragm, consistent with bowel perforation.": True,
    "Acute subdural haematoma over the right hemisphere with midline shift.": True,
    "No acute intracranial hemorrhage, mass effect or midline shift.": False,
    "IMPRESSION: NO ACUTE INTRACRANIAL HAEMORRHAGE.": False,
    "Type B aortic dissection extending to the iliac arteries, unchanged.": True,
    "The lungs are clear.": False,
    LONG_NEGATIVE: False,
    HIDDEN_POSITIVE: True,
    "主动脉夹层\uff0c累及降主动脉。": True,
    "排除主动脉夹层。": False,
    "不能排除肺栓塞。": True,
    "原左侧气胸已吸收。": False,
    "双肺纹理清晰\uff0c未见实变\uff0c未见胸腔积液及气胸。": False,
    "膈下见游离气体\uff0c考虑消化道穿孔。": True,
    "复查\uff1a右侧气胸较前减少\uff0c仍可见少量气胸。": True,
    "临床怀疑肺栓塞。CT\uff1a双肺未见异常\uff0c肺动脉未见栓塞。": False,
    "未见颅内出血。未见硬膜下血肿。脑室大小正常。左侧少量气胸。未见肋骨骨折。无胸腔积液。": True,
    "胸部CT平扫。与前次检查比较。双肺纹理清晰\uff0c未见实变。左侧胸腔少量积液。原右侧气胸已吸收。未见肺栓塞。"
    "主动脉未见夹层。心影大小正常。骨质未见异常。印象\uff1a左侧少量胸腔积液\uff0c未见气胸。": False,
}


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER_FILE))


@pytest.fixture(scope="module")
def committed() -> keras.Model:
    return keras.models.load_model(MODEL_FILE, safe_mode=True)


def accuracy(model: keras.Model, tokenizer: Tokenizer, count: int, *, seed: int, split: Split) -> float:
    samples = list(generate("report_triage", count, seed=seed, split=split))
    token_ids = encode(tokenizer, [str(sample.source) for sample in samples], MAX_TOKENS)
    positive = model.predict(token_ids, verbose=0, batch_size=128)[:, 0] >= SPEC.labels[0].threshold
    return float((positive == np.array([bool(sample.label) for sample in samples])).mean())


@pytest.mark.parametrize("seed", [20261122, 4711])
def test_committed_model_reads_sentences_it_was_not_trained_on(
    committed: keras.Model, tokenizer: Tokenizer, seed: int
) -> None:
    assert accuracy(committed, tokenizer, 500, seed=seed, split=Split.TEST) >= 0.95


@pytest.fixture(scope="module")
def hand_written_answers(committed: keras.Model, tokenizer: Tokenizer) -> dict[str, float]:
    answers = committed.predict(encode(tokenizer, list(HAND_WRITTEN), MAX_TOKENS), verbose=0)[:, 0]
    return dict(zip(HAND_WRITTEN, map(float, answers), strict=True))


@pytest.mark.parametrize("text", HAND_WRITTEN)
def test_committed_model_is_right_about_hand_written_reports(hand_written_answers: dict[str, float], text: str) -> None:
    assert (hand_written_answers[text] >= SPEC.labels[0].threshold) == HAND_WRITTEN[text]


def test_committed_model_is_the_plain_architecture_without_optimizer(
    committed: keras.Model, tokenizer: Tokenizer
) -> None:
    wanted = build_network(tokenizer.get_vocab_size(), MAX_TOKENS)
    # Layers that Keras numbers (embedding_3) differ in nothing but that name.
    configs = [[{**layer.get_config(), "name": ""} for layer in model.layers] for model in (committed, wanted)]
    assert configs[0] == configs[1]
    assert MODEL_FILE.stat().st_size < 1.2 * 4 * wanted.count_params()


def test_padding_does_not_change_the_answer(
    committed: keras.Model, tokenizer: Tokenizer, hand_written_answers: dict[str, float]
) -> None:
    free = build_network(tokenizer.get_vocab_size(), None)
    free.set_weights(committed.get_weights())
    for text in ("左侧气胸。", "No evidence of pneumothorax.", HIDDEN_POSITIVE):
        bare = np.array([tokenizer.encode(text).ids], np.int32)
        assert free.predict(bare, verbose=0)[0, 0] == pytest.approx(hand_written_answers[text], abs=1e-5)


def test_a_text_without_tokens_is_not_critical(committed: keras.Model, tokenizer: Tokenizer) -> None:
    assert committed.predict(encode(tokenizer, [""], MAX_TOKENS), verbose=0)[0, 0] < 0.5


def test_any_token_ids_give_a_probability(committed: keras.Model, tokenizer: Tokenizer) -> None:
    # An LSTM with relu can run away: on random tokens, and on one token for ever.
    count = tokenizer.get_vocab_size()
    random = np.random.default_rng(0).integers(0, count, (128, MAX_TOKENS), np.int32)
    repeated = np.repeat(np.arange(count, dtype=np.int32)[:, None], MAX_TOKENS, axis=1)
    probabilities = committed.predict(np.concatenate([random, repeated]), verbose=0, batch_size=256)
    assert np.isfinite(probabilities).all()


def test_committed_tokenizer_is_what_the_spec_builds() -> None:
    assert build_tokenizer(SPEC).to_str(pretty=True) == TOKENIZER_FILE.read_text(encoding="utf-8")


def test_tokenizer_has_padding_first_and_neither_pads_nor_cuts(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.get_vocab_size() <= 8000
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    assert len(tokenizer.encode("气胸" * 1000).ids) == 2000


def test_empty_text_has_no_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("").ids == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("No PneumoThorax.", "no pneumothorax."),
        ("未见气胸\uff0c建议复查\uff1f", "未见气胸,建议复查?"),
        ("\uff23\uff34 \uff11\uff12mm", "CT 12mm"),
    ],
)
def test_case_and_width_of_letters_and_punctuation_do_not_matter(tokenizer: Tokenizer, one: str, other: str) -> None:
    assert tokenizer.encode(one).ids == tokenizer.encode(other).ids


def test_each_chinese_character_is_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("左侧气胸。CT").tokens == ["左", "侧", "气", "胸", "。", "ct"]


def test_an_unseen_word_is_one_unknown_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("no zyzzyva").tokens == ["no", "[UNK]"]


@settings(max_examples=200)
@given(text=st.text(max_size=400))
def test_any_text_is_encoded_within_the_vocabulary(tokenizer: Tokenizer, text: str) -> None:
    token_ids = encode(tokenizer, [text], MAX_TOKENS)
    assert token_ids.shape == (1, MAX_TOKENS)
    assert token_ids.dtype == np.int32
    assert token_ids.min() >= 0
    assert token_ids.max() < tokenizer.get_vocab_size()


def test_a_tiny_training_learns_and_reports_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CURRICULUM", (0.5,) * 40)
    monkeypatch.setattr(training, "_BATCH", 32)
    steps: list[tuple[int, int]] = []
    model = train(TINY, None, lambda _, done, total: steps.append((done, total)))
    assert model.input_shape == (None, MAX_TOKENS)
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert accuracy(model, build_tokenizer(TINY), 600, seed=5, split=Split.TRAIN) >= 0.75


def test_own_data_are_refused() -> None:
    data = Dataset(x=np.zeros((1, 1), np.int32), y=np.zeros(1, np.int64))
    with pytest.raises(SpecError, match="generated reports only"):
        train(SPEC, data, silent)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (msgspec.structs.replace(SPEC, training=None), "no training block"),
        (msgspec.structs.replace(SPEC, input=None), "kind text"),
    ],
)
def test_a_spec_that_is_not_a_trainable_text_model_is_refused(spec: Spec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        train(spec, None, silent)
