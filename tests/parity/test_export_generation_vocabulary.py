"""A start or end token that the decoder does not know is refused before anything is compared or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.generators import END, START, Tiny
from support.text_generators import generation_spec, generator, tokenizer

from radserve.errors import SpecError
from radserve_export import pipeline
from radserve_export.network import Decoding

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (7, END, r"generation\.start: the tokenizer's id of that token is 7, .* vocabulary has 7 ids"),
        (START, 7, r"generation\.end: the tokenizer's id of that token is 7, .* vocabulary has 7 ids"),
    ],
)
def test_a_token_beyond_the_decoders_vocabulary_is_refused(start: int, end: int, says: str) -> None:
    how = Decoding(start=start, end=end, vocabulary=9, max_tokens=6, beams=1, length_penalty=0.0)
    with pytest.raises(SpecError, match=says):
        Tiny.random(0, vocabulary=7).graph(how)


def test_the_last_word_of_the_vocabulary_may_be_the_end() -> None:
    how = Decoding(start=START, end=6, vocabulary=7, max_tokens=6, beams=1, length_penalty=0.0)
    assert Tiny.random(0, vocabulary=7).graph(how).graph.node


@pytest.mark.full
def test_an_export_with_such_a_token_writes_nothing(tmp_path: Path) -> None:
    made = tokenizer()
    made.add_special_tokens(["[STOP]"])
    spec = generation_spec(
        tmp_path,
        model=generator(vocabulary=made.get_vocab_size() - 1),
        generation={"start": "[START]", "end": "[STOP]", "max_tokens": 4},
    )
    made.save(str(tmp_path / "tokenizer.json"))
    count = made.get_vocab_size() - 1
    with pytest.raises(SpecError, match=rf"generation\.end: .* is {count}, but .* has {count} ids"):
        pipeline.export(spec, tmp_path / "models")
    assert not (tmp_path / "models").exists()
