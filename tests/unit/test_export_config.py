from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.exports import dense_network, export_network, image_spec, text_spec, token_network, write_spec

from radserve.contracts import CONTRACT_PARAMETER, Datatype, TensorSpec, parse_contract, wire_tensors
from radserve.errors import RepositoryError, SpecError
from radserve_export.check import check_repository
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


def _parameter(config: Any) -> str:
    text: str = config.parameters[CONTRACT_PARAMETER].string_value
    return text


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


@pytest.mark.parametrize("described", [image_spec, text_spec])
def test_without_a_queue_no_step_has_priorities_or_limits(
    build: Build, described: Callable[..., dict[str, Any]]
) -> None:
    configs = build(described(serving={"queue": None, "fuse": False}))
    (contract,) = (parse_contract(_parameter(config)) for config in configs.values() if config.platform)
    assert contract.priorities is False
    steps = [config for config in configs.values() if not config.platform]
    assert len(steps) > 1
    for step in steps:
        assert step.HasField("dynamic_batching")
        assert not step.dynamic_batching.ListFields()


def test_a_contract_says_that_there_are_no_priorities_where_there_is_no_batch_axis(build: Build) -> None:
    config = build({"name": "raw", "task": "tensors", "model": "m.keras", "serving": {"max_batch_size": 0}})["raw"]
    assert parse_contract(_parameter(config)).priorities is False


def test_a_contract_says_nothing_of_priorities_where_there_are_some(build: Build) -> None:
    assert "priorities" not in _parameter(build(image_spec())["tiny"])


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


def _accelerator(config: Any) -> tuple[str, dict[str, str]]:
    (one,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    return one.name, dict(one.parameters)


def test_tensorrt_gets_profiles_of_the_input_and_a_cache(build: Build) -> None:
    plan = {"cache": "/cache", "batch_size": 4, "workspace_bytes": 2**28}
    serving = {"max_batch_size": 16, "accelerator": "tensorrt", "precision": "fp16", "tensorrt": plan}
    config = build(image_spec(serving=serving))["tiny_pipeline"]
    assert _accelerator(config) == (
        "tensorrt",
        {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": "268435456",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "/cache",
            "trt_profile_min_shapes": "PIXELS:1x4x3x1",
            "trt_profile_opt_shapes": "PIXELS:4x4x3x1",
            "trt_profile_max_shapes": "PIXELS:16x4x3x1",
        },
    )


def test_apart_tensorrt_runs_the_network_alone(build: Build) -> None:
    configs = build(image_spec(serving={"fuse": False, "accelerator": "tensorrt"}))
    name, parameters = _accelerator(configs["tiny_network"])
    assert (name, parameters["precision_mode"]) == ("tensorrt", "FP32")
    assert parameters["trt_profile_opt_shapes"] == "NETWORK_INPUT:32x4x3x1"
    assert "trt_engine_cache_enable" not in parameters
    for step in ("tiny_preprocess", "tiny_postprocess"):
        assert not configs[step].HasField("optimization")


def test_free_axes_need_lengths_for_tensorrt(build: Build) -> None:
    described = {"name": "raw", "task": "tensors", "model": "m.keras"}
    serving = {"max_batch_size": 0, "accelerator": "tensorrt"}
    with pytest.raises(SpecError, match=r"NETWORK_INPUT is \[-1, 4, 3, 1\]: give the lengths of its free axes"):
        build(described | {"serving": serving})
    config = build(described | {"serving": serving | {"tensorrt": {"lengths": [1, 8, 64]}}})["raw_network"]
    assert _accelerator(config)[1]["trt_profile_max_shapes"] == "NETWORK_INPUT:64x4x3x1"


def test_a_type_that_tensorrt_does_not_take_is_told(build: Build) -> None:
    described = image_spec(serving={"accelerator": "tensorrt"})
    described["input"] |= {"wire_dtype": "UINT16"}
    with pytest.raises(SpecError, match=r"TensorRT does not take UINT16 \(PIXELS\): say fuse: false"):
        build(described)


def test_cuda_runs_every_graph_and_no_python_step(build: Build) -> None:
    configs = build(text_spec(serving={"accelerator": "cuda", "instances": {"kind": "gpu", "gpus": [0, 2]}}))
    assert _accelerator(configs["words_pipeline"]) == ("cuda", {})
    (group,) = configs["words_pipeline"].instance_group
    assert (group.kind, list(group.gpus)) == (group.KIND_GPU, [0, 2])
    assert not configs["words_tokenize"].HasField("optimization")
    (group,) = configs["words_tokenize"].instance_group
    assert (group.kind, list(group.gpus)) == (group.KIND_CPU, [])


@pytest.mark.parametrize(
    "serving",
    [
        {"accelerator": "tensorrt", "tensorrt": {"cache": "/cache"}, "max_batch_size": 16},
        {"accelerator": "cuda", "fuse": False, "instances": {"kind": "gpu", "gpus": [1]}},
        {"warmup_batch_sizes": [1, 64], "queue": {"allow_timeout_override": False, "priority_levels": 2}},
        {"max_batch_size": 1, "queue": {"priority_levels": 1}},
    ],
)
def test_what_is_written_passes_the_check(tmp_path: Path, serving: dict[str, Any]) -> None:
    export_network(tmp_path, dense_network(), image_spec(serving=serving))
    assert check_repository(tmp_path / "models") == []


def test_warm_up_runs_each_batch_size_on_zeros(build: Build) -> None:
    warmups = build(text_spec(serving={"warmup_batch_sizes": [1, 8]}))["words_pipeline"].model_warmup
    assert [(one.name, one.batch_size) for one in warmups] == [("zeros", 1), ("zeros_8", 8)]
    assert all(one.inputs["TOKEN_IDS"].zero_data for one in warmups)


def test_a_requests_own_timeout_can_be_refused(build: Build) -> None:
    config = build(image_spec(serving={"queue": {"allow_timeout_override": False}}))["tiny_pipeline"]
    assert not config.dynamic_batching.default_queue_policy.allow_timeout_override


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"warmup_batch_sizes": [65]}, "warmup_batch_sizes: one is above max_batch_size"),
        ({"instances": {"gpus": [0]}}, "instances.gpus: only kind gpu takes them"),
        ({"instances": {"kind": "gpu", "gpus": [0, 0]}}, "instances.gpus: one is there twice"),
        ({"accelerator": "cuda", "instances": {"kind": "cpu"}}, "cuda needs a GPU, but instances are of kind cpu"),
        ({"accelerator": "cuda", "tensorrt": {}}, "tensorrt: accelerator is another one"),
        (
            {"accelerator": "tensorrt", "tensorrt": {"batch_size": 65}},
            "tensorrt.batch_size: it is above max_batch_size",
        ),
        ({"accelerator": "tensorrt", "tensorrt": {"lengths": [2, 1, 3]}}, "tensorrt.lengths: they must grow"),
        ({"precision": "fp16"}, "low_precision: say what must still be reached"),
        ({"quantization": "static"}, "low_precision: say what must still be reached"),
        ({"low_precision": {"atol": 0.1, "minimum_agreement": 1}}, "low_precision: nothing is in lower precision"),
        ({"quantization": "dynamic"}, "dynamic runs on the CPU: instances: {kind: cpu}"),
        ({"quantization": "static", "precision": "fp16"}, "quantization: it goes with precision fp32"),
        ({"versions_kept": 1}, "versions_kept"),
        ({"accelerator": "openvino"}, "accelerator"),
    ],
)
def test_a_serving_block_that_contradicts_itself_is_refused(
    tmp_path: Path, serving: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(tmp_path, image_spec(serving=serving)))
    assert message in str(caught.value)


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
