"""Whether the steps of the ensembles fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.contracts import CONTRACT_PARAMETER
from radserve_export.checks.contract import has_priorities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tritonclient.grpc.model_config_pb2 import ModelEnsembling

    from radserve_export.checks.model import Problem, ServedModel, Tensor
    from radserve_export.checks.pbtxt import Field


def wiring_problems(models: Mapping[str, ServedModel]) -> Iterator[tuple[str, Problem]]:
    """Follow every ensemble's tensors through its steps.

    Args:
        models: By name.

    Yields:
        The model whose configuration is wrong, and what is wrong there.
    """
    for name, model in models.items():
        if not model.is_ensemble:
            continue
        if not model.config.ensemble_scheduling.step:
            yield name, (model.text.at("ensemble_scheduling").line, "an ensemble without steps")
            continue
        ensemble = _Ensemble(name, model, models)
        for problem in ensemble.problems():
            yield name, problem
        yield from _priorities(name, model, models)
        yield from _circles_of_ensembles(name, model, models)


def _circles_of_ensembles(
    name: str, model: ServedModel, models: Mapping[str, ServedModel]
) -> Iterator[tuple[str, Problem]]:
    """Steps that lead back to the ensemble."""
    places = model.text.at("ensemble_scheduling").all("step")
    for number, step in enumerate(model.config.ensemble_scheduling.step):
        seen: set[str] = set()
        waiting = [step.model_name]
        while waiting:
            one = waiting.pop()
            if one not in seen and one in models:
                seen.add(one)
                waiting += [inner.model_name for inner in models[one].config.ensemble_scheduling.step]
        if name in seen:
            line = (places[number] if places else model.text).at("model_name").line
            how = "is the ensemble itself" if step.model_name == name else "leads back to the ensemble"
            yield name, (line, f"step {step.model_name} {how}")


def _priorities(name: str, model: ServedModel, models: Mapping[str, ServedModel]) -> Iterator[tuple[str, Problem]]:
    """Each step resets a priority beyond its own levels: all must have the same ones."""
    names = {step.model_name for step in model.config.ensemble_scheduling.step}
    steps = {one: models[one] for one in sorted(names) if one in models and not models[one].is_ensemble}
    levels = {one: step.config.dynamic_batching.priority_levels for one, step in steps.items()}
    most = max(levels.values(), default=0)
    if model.config.max_batch_size and has_priorities(model):
        most = max(most, 1)
    for one, count in levels.items():
        if count < most:
            line = steps[one].text.at("dynamic_batching", "priority_levels").line
            whose = f"ensemble {name} has steps with {most}" if most > 1 else f"callers of {name} set priorities"
            yield one, (line, f"has {count or 'no'} priority levels, but {whose}: urgency would be lost here")


class _Ensemble:
    def __init__(self, name: str, model: ServedModel, models: Mapping[str, ServedModel]) -> None:
        self._name = name
        self._config = model.config
        self._text = model.text
        self._models = models
        places = self._text.at("ensemble_scheduling").all("step")
        steps = list(model.config.ensemble_scheduling.step)
        self._steps: list[tuple[ModelEnsembling.Step, Field]] = [
            (step, places[number] if places else self._text) for number, step in enumerate(steps)
        ]
        self._inputs = model.tensors("input") or {}
        self._outputs = model.tensors("output") or {}

    def problems(self) -> Iterator[Problem]:
        for step, place in self._steps:
            model = self._models.get(step.model_name)
            if model is None:
                line = place.at("model_name").line
                yield line, f"step {step.model_name} is not there, or its configuration cannot be read"
                continue
            yield from self._pin(step, place, model)
            if self._config.max_batch_size > model.config.max_batch_size:
                sizes = f"of {model.config.max_batch_size}, the ensemble of {self._config.max_batch_size}"
                yield place.at("model_name").line, f"step {step.model_name} takes batches {sizes}"
            yield from self._mapping(step, place, model)
        yield from self._flow()

    def _pin(self, step: ModelEnsembling.Step, place: Field, model: ServedModel) -> Iterator[Problem]:
        line = place.at("model_version" if place.all("model_version") else "model_name").line
        who = f"step {step.model_name}"
        version = step.model_version
        if version == -1:
            if CONTRACT_PARAMETER in self._config.parameters:
                yield line, f"{who} is not pinned to a version: an answer would not tell which one gave it"
        elif version < 1:
            yield line, f"{who} is not pinned to a version: without model_version it is 0, -1 takes the latest"
        elif version not in model.versions:
            yield line, f"{who} is pinned to version {version}, which is not there"
        elif version not in model.served():
            yield line, f"{who} is pinned to version {version}, which its policy does not serve"

    def _mapping(self, step: ModelEnsembling.Step, place: Field, model: ServedModel) -> Iterator[Problem]:
        who = f"step {step.model_name}"
        inputs, outputs = model.tensors("input"), model.tensors("output")
        optional = {tensor.name for tensor in model.config.input if tensor.optional}
        if inputs is not None:
            for name in sorted(inputs.keys() - set(step.input_map) - optional):
                yield place.line, f"{who}: input {name} is not fed"
            for name in sorted(set(step.input_map) - inputs.keys()):
                yield place.keyed("input_map", name, by="key").line, f"{who}: input {name} is none of its inputs"
        if outputs is not None:
            for name in sorted(set(step.output_map) - outputs.keys()):
                yield place.keyed("output_map", name, by="key").line, f"{who}: {name} is none of its outputs"

    def _flow(self) -> Iterator[Problem]:
        """Each tensor is made once, read, and what its readers take it for."""
        made: dict[str, Tensor | None] = dict(self._inputs)
        makers: dict[str, int] = {}
        for number, (step, place) in enumerate(self._steps):
            outputs = self._tensors_of(step, "output")
            for inner, outer in step.output_map.items():
                if outer in made:
                    yield place.keyed("output_map", inner, by="key").line, f"tensor {outer} is made twice"
                    continue
                made[outer], makers[outer] = outputs.get(inner), number
        readers = list(self._readers())
        for name, who, taken, line in readers:
            given = made.get(name)
            if name not in made:
                yield line, f"{who} takes {name}, which nothing makes"
            elif given is not None and taken is not None and not taken.fits(given):
                yield line, f"{who} takes {name} as {taken}, but it is {given}"
        yield from self._unread(made, makers, {name for name, *_ in readers})
        yield from self._circles(makers)

    def _readers(self) -> Iterator[tuple[str, str, Tensor | None, int]]:
        """Each tensor that is taken, by whom, as what, and where that is said."""
        for name, tensor in self._outputs.items():
            yield name, "the ensemble", tensor, self._text.keyed("output", name).line
        for step, place in self._steps:
            inputs = self._tensors_of(step, "input")
            for inner, outer in step.input_map.items():
                line = place.keyed("input_map", inner, by="key").line
                yield outer, f"step {step.model_name}", inputs.get(inner), line

    def _tensors_of(self, step: ModelEnsembling.Step, side: str) -> dict[str, Tensor]:
        model = self._models.get(step.model_name)
        return (model.tensors(side) if model else None) or {}

    def _unread(
        self, made: Mapping[str, Tensor | None], makers: Mapping[str, int], read: set[str]
    ) -> Iterator[Problem]:
        needed = set(self._outputs)
        alive: set[int] = set()
        while grown := {makers[name] for name in needed if name in makers} - alive:
            alive |= grown
            needed |= {outer for number in grown for outer in self._steps[number][0].input_map.values()}
        for number, (step, place) in enumerate(self._steps):
            if number not in alive:
                yield place.line, f"step {step.model_name} is dead: no output of the ensemble comes of it"
        for name in sorted(made.keys() - read):
            if name in makers:
                step, place = self._steps[makers[name]]
                inner = next(inner for inner, outer in step.output_map.items() if outer == name)
                line = place.keyed("output_map", inner, by="key").line
            else:
                line = self._text.keyed("input", name).line
            if name not in makers or makers[name] in alive:
                yield line, f"tensor {name} is read by nothing"

    def _circles(self, makers: Mapping[str, int]) -> Iterator[Problem]:
        """Steps that wait for each other."""
        waits = {
            number: {makers[outer] for outer in step.input_map.values() if outer in makers}
            for number, (step, _) in enumerate(self._steps)
        }
        while ready := [number for number, others in waits.items() if not others & waits.keys()]:
            for number in ready:
                del waits[number]
        if waits:
            names = ", ".join(self._steps[number][0].model_name for number in sorted(waits))
            yield self._steps[min(waits)][1].line, f"each of these steps waits for another: {names}"
