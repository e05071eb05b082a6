"""The generated findings and impressions: what is in them, what is left out, what the splits share."""

from __future__ import annotations

import re

import pytest

from radserve_export.synthetic import Sample, Split, generate
from radserve_export.synthetic._impression_chinese import CHINESE
from radserve_export.synthetic._impression_english import ENGLISH

LANGUAGES = (ENGLISH, CHINESE)


def reports(count: int, *, seed: int = 3, split: Split = Split.TRAIN) -> list[Sample]:
    return list(generate("report_impression", count, seed=seed, split=split))


def lines(sample: Sample) -> list[str]:
    """The impression's lines without their numbers; none where nothing was found."""
    text = str(sample.expected)
    if text in [language.nothing for language in LANGUAGES]:
        return []
    return [line for line in re.split(r"(?:^|[ 。])\d\. |。$", text) if line] if text[1:3] == ". " else [text]


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?= ?mm)", text)


def test_the_same_seed_writes_the_same_reports() -> None:
    assert reports(40, seed=9) == reports(40, seed=9)


def test_another_seed_or_split_writes_others() -> None:
    texts = {reports(1, seed=seed, split=split)[0].source for seed in (1, 2) for split in Split}
    assert len(texts) == 4


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    assert reports(30)[:13] == reports(13)


def test_every_other_report_is_chinese() -> None:
    chinese = [any("\u4e00" <= character <= "\u9fff" for character in str(s.source)) for s in reports(100)]
    assert chinese == [False, True] * 50


def test_no_line_of_an_impression_is_in_both_splits() -> None:
    train, test = ({line.rstrip(".。") for s in reports(3000, split=split) for line in lines(s)} for split in Split)
    assert len(train) > 1500
    assert len(test) > 1000
    assert not train & test


def test_names_and_places_are_in_both_splits() -> None:
    words = [
        word for language in LANGUAGES for kind in language.kinds for word in (*kind.names, *kind.places, *kind.grades)
    ]
    for split in Split:
        told = " ".join(str(s.expected) for s in reports(2000, split=split)).lower()
        assert [word for word in words if word not in told] == []


@pytest.mark.parametrize("split", Split)
def test_an_impression_names_what_is_there_in_the_order_of_the_report(split: Split) -> None:
    for sample in reports(500, split=split):
        found = [
            name
            for language in LANGUAGES
            for kind in language.kinds
            for name in kind.names
            if name in str(sample.expected).lower()
        ]
        text = str(sample.source).lower()
        places = sorted(found, key=lambda name: str(sample.expected).lower().index(name))
        assert [text.index(name) for name in places] == sorted(text.index(name) for name in found)


def test_sizes_are_copied_and_some_are_left_out() -> None:
    samples = reports(1000)
    assert all(set(numbers(str(s.expected))) <= set(re.findall(r"\d+", str(s.source))) for s in samples)
    left_out = [s for s in samples if set(numbers(str(s.source))) - set(numbers(str(s.expected)))]
    assert len(left_out) > 300


def test_what_is_absent_or_gone_is_not_in_the_impression() -> None:
    for sample in reports(2000):
        for name in re.findall(
            r"(?:No|There is no evidence of|There is no) ([a-z ]+?)(?= or |\.| is )", str(sample.source)
        ):
            assert name not in str(sample.expected)


def test_some_reports_find_nothing_and_say_so() -> None:
    texts = [str(s.expected) for s in reports(1000)]
    for language in LANGUAGES:
        assert 50 < texts.count(language.nothing) < 150


@pytest.mark.parametrize("split", Split)
def test_no_slot_or_choice_is_left_unfilled(split: Split) -> None:
    pattern = re.compile(r"[\[\]{}|]|  ")
    assert not [s for s in reports(2000, split=split) if pattern.search(str(s.source) + str(s.expected))]
