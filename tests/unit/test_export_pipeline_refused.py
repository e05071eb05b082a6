"""Models that an export refuses to publish, and what it says of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from support.exports import (
    dense_network,
    image_spec,
    label,
    siblings,
    text_spec,
    token_network,
    write_spec,
    write_tokenizer,
)

from radserve.errors import ParityError, RepositoryError, SpecError
from radserve_export import pipeline
from radserve_export.reference import check_fit
from radserve_export.spec import load_spec
from radserve_export.tasks.classification import check_activation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network


@pytest.fixture
def spec(tmp_path: Path, use_network: Callable[[Network], None]) -> Path:
    use_network(dense_network())
    return write_spec(tmp_path, image_spec())


def test_a_failed_parity_gate_publishes_nothing(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(replace(dense_network(), reference=dense_network(seed=1).reference))
    with pytest.raises(ParityError):
        pipeline.export(spec, tmp_path / "models")
    assert siblings(tmp_path / "models") == {"tiny.yaml"}


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (image_spec(labels=[label("a"), label("b")]), "the model gives [3] values, but the spec has 2 labels"),
        (
            image_spec(input={**image_spec()["input"], "rows": 5}),
            "[5, 3, 1]: it takes input: {rows: 4, columns: 3, photometric: MONOCHROME2}",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_spec_is_told(
    tmp_path: Path, spec: Path, described: dict[str, Any], message: str
) -> None:
    write_spec(tmp_path, described)
    with pytest.raises(SpecError) as caught:
        pipeline.export(spec, tmp_path / "models")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("dims", "told"),
    [
        ([4, 3, 3], r"gives \[4, 3, 1\]: it takes input: \{rows: 4, columns: 3, photometric: RGB\}"),
        ([-1, -1, 3], r"gives \[4, 3, 1\]: it takes input: \{photometric: RGB\}"),
        ([4, 3, 5], r"gives \[4, 3, 1\]$"),
        ([12], r"gives \[4, 3, 1\]$"),
    ],
)
def test_the_input_that_a_network_takes_is_named(tmp_path: Path, dims: list[int], told: str) -> None:
    network = dense_network()
    shape = network.graph.graph.input[0].type.tensor_type.shape
    del shape.dim[1:]
    for size in dims:
        shape.dim.add(**({"dim_value": size} if size > 0 else {"dim_param": "any"}))
    with pytest.raises(SpecError, match=told):
        check_fit(load_spec(write_spec(tmp_path, image_spec())), network, None)


def test_a_model_with_a_text_layer_is_told_all_of_the_input_it_needs(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    write_tokenizer(tmp_path / "of_the_layer.json")
    use_network(replace(token_network(), tokenizer=(tmp_path / "of_the_layer.json").read_bytes()))
    spec = {"name": "words", "task": "tensors", "model": "words.keras"}
    with pytest.raises(SpecError, match=r"input: \{kind: text, languages: \[en\], max_tokens: 6\}") as caught:
        pipeline.export(write_spec(tmp_path, spec), tmp_path / "models")
    given = yaml.safe_load(str(caught.value).partition("input: ")[2].partition(", with")[0])
    path = write_spec(tmp_path, text_spec(tokenizer=None, input=given))
    assert pipeline.export(path, tmp_path / "models").version == 1


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(token_network())
    path = write_spec(tmp_path, text_spec())
    write_tokenizer(tmp_path / "tokenizer.json", ("[PAD]", "[UNK]", *"abcdefg"))
    with pytest.raises(SpecError, match="the tokenizer has 9 tokens, but the model's Embedding only 6"):
        pipeline.export(path, tmp_path / "models")


def test_a_text_model_without_a_tokenizer_is_told_where_one_belongs(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(token_network())
    with pytest.raises(SpecError, match=r"name its tokenizer\.json"):
        pipeline.export(write_spec(tmp_path, text_spec(tokenizer=None)), tmp_path / "models")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network_output": "logits"}, "say network_output: probabilities"),
        ({"network_output": "logits", "exclusive": False}, "say network_output: probabilities"),
    ],
)
def test_an_activation_that_the_spec_does_not_know_of_is_refused(
    tmp_path: Path,
    use_network: Callable[[Network], None],
    changes: dict[str, Any],
    told: str,
) -> None:
    use_network(dense_network())
    with pytest.raises(SpecError, match=told):
        pipeline.export(write_spec(tmp_path, image_spec(**changes)), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("values", "exclusive", "told"),
    [
        ([[2.0, -1.0, 0.5]], True, "say network_output: logits"),
        ([[0.2, 0.2, 0.2]], True, "do not sum to 1"),
        ([[0.9, 0.8, 1.2]], False, "say network_output: logits"),
        ([[0.2, 0.3, 0.5]], True, None),
        ([[0.9, 0.8, 0.1]], False, None),
    ],
)
def test_what_is_called_probabilities_must_be_some(
    tmp_path: Path, values: list[list[float]], *, exclusive: bool, told: str | None
) -> None:
    spec = load_spec(write_spec(tmp_path, image_spec(exclusive=exclusive)))
    with nullcontext() if told is None else pytest.raises(SpecError, match=told):
        check_activation(np.array(values), spec)


def test_a_published_file_that_was_changed_is_not_overlooked(tmp_path: Path, spec: Path) -> None:
    pipeline.export(spec, tmp_path / "models")
    (tmp_path / "models/tiny/1/labels.txt").write_text("a\nb\nd\n")
    with pytest.raises(RepositoryError, match=r"labels\.txt is not what was published"):
        pipeline.export(spec, tmp_path / "models")
