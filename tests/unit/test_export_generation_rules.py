"""What the parity gate and the evaluation of text generators let pass, and what not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY, Task, TextInput
from radserve_export.evaluate import _generation as measures
from radserve_export.graphs import GENERATED_IDS
from radserve_export.graphs.decoding import MARGIN, OWN_LOG_PROBABILITY, REGRET
from radserve_export.spec import Generation, Spec
from radserve_export.synthetic import Sample
from radserve_export.tasks import rules_of

SPEC = Spec(
    name="writer",
    task=Task.TEXT_GENERATION,
    model="writer.keras",
    input=TextInput(languages=("en",), max_tokens=4),
    generation=Generation(start="[START]", end="[END]", max_tokens=3),
)
RULES = rules_of(Task.TEXT_GENERATION).own_rules


def answers(margin: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Two rows."""
    plain = {
        GENERATED_IDS: np.array([[4, 5, 0], [6, 0, 0]], np.int32),
        IS_COMPLETE: np.array([[True], [True]]),
        LOG_PROBABILITY: np.array([[-1.0], [-2.0]], np.float32),
        MARGIN: np.array([[1.0], [margin]]),
        OWN_LOG_PROBABILITY: np.array([[-1.0], [-2.0]]),
        REGRET: np.zeros((2, 1)),
    }
    return plain | changes


OTHER_WORD = answers()[GENERATED_IDS] + np.array([[0, 0, 0], [1, 0, 0]], np.int32)


def failures(got: dict[str, Any], want: dict[str, Any]) -> dict[str, list[bool]]:
    """Rows that are wrong, of the outputs where one is."""
    found = {name: rule(got, want, SPEC).tolist() for name, rule in RULES.items()}
    return {name: wrong for name, wrong in found.items() if any(wrong)}


def test_equal_answers_pass() -> None:
    assert failures(answers(), answers()) == {}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (GENERATED_IDS, OTHER_WORD),
        (IS_COMPLETE, np.array([[True], [False]])),
        (LOG_PROBABILITY, np.array([[-1.0], [-2.01]], np.float32)),
        (LOG_PROBABILITY, np.array([[-1.0], [np.nan]], np.float32)),
    ],
)
def test_a_wrong_answer_fails_in_its_row(name: str, wrong: Any) -> None:
    assert failures(answers(**{name: wrong}), answers()) == {name: [False, True]}


@pytest.mark.parametrize("regret", [0.01, np.nan, np.inf])
def test_a_word_that_keras_would_not_choose_fails_even_where_it_all_but_tossed_a_coin(regret: float) -> None:
    judged = answers(margin=0.0, **{REGRET: np.array([[0.0], [regret]])})
    assert failures(answers(), judged) == {REGRET: [False, True]}


def test_a_nan_of_keras_itself_fails() -> None:
    unknown = answers() | {LOG_PROBABILITY: np.array([[-1.0], [np.nan]], np.float32)}
    assert failures(unknown, unknown) == {LOG_PROBABILITY: [False, True]}


@pytest.mark.parametrize(("margin", "passes"), [(1e-6, True), (1e-2, False), (np.nan, False), (np.inf, False)])
def test_another_text_passes_only_where_keras_all_but_tossed_a_coin(margin: float, *, passes: bool) -> None:
    other = answers(**{GENERATED_IDS: OTHER_WORD, LOG_PROBABILITY: np.array([[-1.0], [-7.0]], np.float32)})
    assert (failures(other, answers(margin)) == {}) == passes


def results(*texts: str, complete: bool = True, log_probability: float = -1.0) -> list[Any]:
    return [SimpleNamespace(text=text, is_complete=complete, log_probability=log_probability) for text in texts]


SAMPLES = [Sample(source="a", label="", expected="Yes."), Sample(source="b", label="", expected="No.")]


def test_exact_match_counts_every_character() -> None:
    found = measures.score(SPEC, SAMPLES, results("Yes.", "no."))
    assert found == {"n": 2, "exact_match": 0.5, "complete": 1.0}


def test_a_text_that_was_cut_off_is_no_match() -> None:
    assert measures.score(SPEC, SAMPLES, results("Yes.", "No.", complete=False))["exact_match"] == 0


class _Reference:
    """Keras' answers to the two samples."""

    def __init__(self, margin: float = 1.0) -> None:
        self._margin = margin

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        assert len(feeds["TEXT"]) == 2
        return answers(self._margin, **{LOG_PROBABILITY: np.array([[-1.0], [-1.0]], np.float32)})

    def texts(self, ids: Any) -> list[str]:
        assert ids.shape == (2, 3)
        return ["Yes.", "No."]


@pytest.mark.parametrize(
    ("served", "log_probability", "margin", "skew"),
    [
        (("Yes.", "No."), -1.5, 1.0, {"max": 0.5, "ties": 0}),
        (("Yes.", "So."), -1.5, 1.0, {"max": np.inf, "ties": 0}),
        (("Yes.", "So."), -1.5, 1e-6, {"max": 0.5, "ties": 1}),
    ],
)
def test_skew_is_that_of_log_probabilities_and_infinite_for_another_text(
    served: tuple[str, str], log_probability: float, margin: float, skew: dict[str, float]
) -> None:
    model: Any = SimpleNamespace(prepare=lambda source: {"TEXT": np.array([[source]], object)})
    reference: Any = _Reference(margin)
    given = results(*served, log_probability=log_probability)
    assert measures.measure_skew(model, SAMPLES, given, reference) == {"n": 2, **skew}
