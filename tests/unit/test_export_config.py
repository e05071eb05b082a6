from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.exports import dense_network, image_spec, text_spec, token_network, write_spec

from radserve.contracts import CONTRACT_PARAMETER, Datatype, TensorSpec, parse_contract, wire_tensors
from radserve.errors import RepositoryError
from radserve_export.ensemble import build_steps
from radserve_export.layout import lay_out
from radserve_export.spec import load_spec
from radserve_export.tokenizer import read_tokenizer
from radserve_export.triton_config import dump_config, parse_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Build = Callable[..., dict[str, Any]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """The configurations of a spec, by model."""

    def of(described: dict[str, Any]) -> dict[str, Any]:
        spec = load_spec(write_spec(tmp_path, described))
        tokenizer = read_tokenizer(tmp_path / spec.tokenizer) if spec.tokenizer else None
        network = token_network() if tokenizer else dense_network()
        wire: tuple[TensorSpec, ...] = ()
        if spec.input is not None:
            wire, _ = wire_tensors(spec.task, spec.input, len(spec.labels))
        steps = build_steps(spec, network, wire, tokenizer)
        files = lay_out(spec, network, steps, tmp_path / "repository", 1).files
        return {
            name.split("/")[0]: parse_config(content)
            for name, content in files.items()
            if name.endswith("/config.pbtxt")
        }

    return of


@pytest.mark.parametrize(
    ("described", "steps"),
    [
        (image_spec(), ["tiny_pipeline"]),
        (image_spec(serving={"fuse": False}), ["tiny_preprocess", "tiny_network", "tiny_postprocess"]),
        (text_spec(), ["words_tokenize", "words_pipeline"]),
        (text_spec(serving={"fuse": False}), ["words_tokenize", "words_network", "words_postprocess"]),
        ({"name": "raw", "task": "tensors", "model": "m.keras"}, ["raw_network"]),
    ],
)
def test_each_form_has_its_steps_pinned(build: Build, described: dict[str, Any], steps: list[str]) -> None:
    configs = build(described)
    ensemble = configs[described["name"]]
    assert [(step.model_name, step.model_version) for step in ensemble.ensemble_scheduling.step] == [
        (name, 1) for name in steps
    ]
    assert set(configs) == {described["name"], *steps}
    assert list(ensemble.version_policy.specific.versions) == [1]


@pytest.mark.parametrize("described", [image_spec(serving={"fuse": False}), text_spec()])
def test_every_step_has_the_same_priorities_and_queue(build: Build, described: dict[str, Any]) -> None:
    configs = build(described)
    batching = [config.dynamic_batching for config in configs.values() if not config.platform]
    assert len(batching) > 1
    for one in batching:
        assert one == batching[0]
    # 1 is STAT, 2 is URGENT; who asks for nothing is ROUTINE.
    assert (batching[0].priority_levels, batching[0].default_priority_level) == (3, 3)
    policy = batching[0].default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert policy.allow_timeout_override
    assert policy.default_timeout_microseconds > 0
    assert policy.max_queue_size == 1024


def test_the_serving_block_reaches_the_configuration(build: Build) -> None:
    serving = {
        "max_batch_size": 8,
        "instances": {"kind": "cpu", "count": 3, "threads": 2},
        "queue": {"max_size": 5, "timeout_us": 7, "max_delay_us": 11, "priority_levels": 4},
    }
    config = build(image_spec(serving=serving))["tiny_pipeline"]
    assert config.max_batch_size == 8
    (group,) = config.instance_group
    assert (group.kind, group.count) == (group.KIND_CPU, 3)
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    batching = config.dynamic_batching
    assert (batching.max_queue_delay_microseconds, batching.priority_levels) == (11, 4)
    assert batching.default_queue_policy.max_queue_size == 5
    assert batching.default_queue_policy.default_timeout_microseconds == 7


def test_without_a_batch_axis_there_is_no_batching(build: Build) -> None:
    config = build({"name": "raw", "task": "tensors", "model": "m.keras", "serving": {"max_batch_size": 0}})
    step = config["raw_network"]
    assert step.max_batch_size == 0
    assert not step.HasField("dynamic_batching")
    assert list(step.input[0].dims) == [-1, 4, 3, 1]
    assert not step.model_warmup, "a free axis has no length to warm up with"


def test_steps_warm_up_on_zeros(build: Build) -> None:
    (warmup,) = build(text_spec())["words_pipeline"].model_warmup
    assert warmup.inputs["TOKEN_IDS"].zero_data
    assert list(warmup.inputs["TOKEN_IDS"].dims) == [6]


def test_the_contract_and_the_labels_travel_with_the_ensemble(build: Build) -> None:
    ensemble = build(image_spec(intended_use="Über Tests"))["tiny"]
    contract = parse_contract(ensemble.parameters[CONTRACT_PARAMETER].string_value)
    assert (contract.name, contract.version, contract.intended_use) == ("tiny", 1, "Über Tests")
    assert [label.name for label in contract.labels] == ["a", "b", "c"]
    assert contract.inputs[0] == TensorSpec(name="PIXELS", dtype=Datatype.UINT8, dims=(4, 3, 1))
    assert [(output.name, output.label_filename) for output in ensemble.output] == [
        ("PROBABILITIES", "1/labels.txt"),
        ("DECISIONS", ""),
    ]


def test_text_and_message_say_the_same(build: Build) -> None:
    for config in build(text_spec()).values():
        assert parse_config(dump_config(config)) == config


def test_a_malformed_configuration_names_the_line() -> None:
    with pytest.raises(RepositoryError, match="2:1"):
        parse_config(b'name: "x"\nno_such_field: 1\n')
