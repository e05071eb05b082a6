"""The grammar of reports: what it promises about labels, languages, lengths and splits."""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from radserve_export.synthetic import Sample, Split, _report_chinese, _report_english, _report_held_out, generate
from radserve_export.synthetic.report_triage import CRITICAL_FINDING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._report_grammar import Phrases

PHRASES = {
    "en": (_report_english.TRAIN, _report_held_out.ENGLISH),
    "zh": (_report_chinese.TRAIN, _report_held_out.CHINESE),
}
CRITICAL_NAMES = {
    name.lower() for finding in (*_report_english.CRITICAL, *_report_chinese.CRITICAL) for name in finding.names
}


def reports(count: int, *, seed: int = 3, split: Split = Split.TRAIN) -> list[Sample]:
    return list(generate("report_triage", count, seed=seed, split=split))


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[\u4e00-\u9fff]", unicodedata.normalize("NFKC", text).lower())


def wordings(template: str) -> set[str]:
    """All texts that the choices of a template allow, without punctuation, spaces and articles of findings."""
    parts = re.split(r"\[([^\[\]]*)\]", template.replace("{a ", "{"))
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return {re.sub(r"[^\w{}]", "", "".join(chosen).lower()) for chosen in itertools.product(*choices)}


def all_wordings(phrases: Phrases) -> set[str]:
    plain = {
        text for field in fields(phrases) for template in getattr(phrases, field.name) for text in wordings(template)
    }
    opened = {
        text
        for opening in phrases.openings
        for template in (*phrases.present, *phrases.absent)
        for text in wordings(opening + template)
    }
    return plain | opened


def test_the_same_seed_writes_the_same_reports() -> None:
    assert reports(40, seed=9) == reports(40, seed=9)


def test_another_seed_or_split_writes_others() -> None:
    texts = {reports(1, seed=seed, split=split)[0].source for seed in (1, 2) for split in Split}
    assert len(texts) == 4


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    assert reports(30)[:13] == reports(13)


@pytest.mark.parametrize("split", Split)
def test_languages_and_labels_are_balanced(split: Split) -> None:
    samples = reports(400, split=split)
    kinds = [(is_chinese(str(sample.source)), sample.label) for sample in samples]
    expected = [(chinese, label) for chinese in (True, False) for label in ("", CRITICAL_FINDING)]
    assert [kinds.count(kind) for kind in expected] == [100] * 4


@pytest.mark.parametrize("language", PHRASES)
def test_no_test_sentence_can_be_written_by_the_training_split(language: str) -> None:
    train, test = PHRASES[language]
    assert not all_wordings(train) & all_wordings(test)


@pytest.mark.parametrize("language", PHRASES)
def test_no_template_of_the_test_split_is_one_of_the_training_split(language: str) -> None:
    train, test = ({text for field in fields(p) for text in getattr(p, field.name)} for p in PHRASES[language])
    assert not train & test


def test_test_sentences_are_made_of_training_words() -> None:
    known = {word for sample in reports(6000) for word in words(str(sample.source))}
    test = [word for sample in reports(1000, split=Split.TEST) for word in words(str(sample.source))]
    assert sum(word not in known for word in test) / len(test) < 0.03


def test_most_negative_reports_name_a_critical_finding() -> None:
    negatives = [str(sample.source).lower() for sample in reports(1000, split=Split.TEST) if not sample.label]
    naming = sum(any(name in text for name in CRITICAL_NAMES) for text in negatives)
    assert naming / len(negatives) > 0.85


def test_reports_run_from_one_line_to_about_two_hundred_words() -> None:
    lengths = [len(words(str(sample.source))) for sample in reports(4000)]
    assert min(lengths) < 6
    assert 150 < max(lengths) < 240


@pytest.mark.parametrize("split", Split)
def test_no_slot_or_choice_is_left_unfilled(split: Split) -> None:
    assert not [sample for sample in reports(2000, split=split) if re.search(r"[\[\]{}|]|  ", str(sample.source))]


def test_chinese_reports_have_full_width_and_half_width_punctuation() -> None:
    chinese = [str(sample.source) for sample in reports(400) if is_chinese(str(sample.source))]
    assert any("\uff0c" in text for text in chinese)
    assert any("," in text for text in chinese)


def test_a_bag_of_words_is_not_enough() -> None:
    train, test = reports(3000), reports(1000, seed=4)
    known = {word: i for i, word in enumerate(sorted({w for s in train for w in words(str(s.source))}))}

    def counted(samples: list[Sample]) -> tuple[NDArray[np.float64], list[str]]:
        bags = np.zeros((len(samples), len(known)))
        for bag, sample in zip(bags, samples, strict=True):
            np.add.at(bag, [known[word] for word in words(str(sample.source)) if word in known], 1)
        return bags, [sample.label for sample in samples]

    classifier = LogisticRegression(max_iter=3000).fit(*counted(train))
    assert classifier.score(*counted(test)) < 0.8
