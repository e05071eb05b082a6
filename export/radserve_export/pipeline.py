"""From a spec to a published model: each stage in its order, nothing written before all have passed."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from radserve.contracts.manifest import Manifest
from radserve_export import repository as repo
from radserve_export.calibrate import calibrate_on_held_out
from radserve_export.ensemble import build_steps
from radserve_export.evidence import SUFFIX, check_companions, explained_stages, public_models
from radserve_export.layout import lay_out
from radserve_export.low_precision import lower_precision, measure_precision, tolerant
from radserve_export.parity import check_parity
from radserve_export.population import measure_population, missing
from radserve_export.publication import keep_number, kept_number, prune, publish, withdraw
from radserve_export.real_inputs import real_batches
from radserve_export.reference import Reference, check_fit, check_outputs, conversion_of, parity_stages, tokenizer_of
from radserve_export.sandbox.limits import DEFAULT_LIMITS, Limits
from radserve_export.sandbox.network import converted_network
from radserve_export.spec import load_spec
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from radserve.contracts import Reference as Population
    from radserve_export.ensemble import Step
    from radserve_export.layout import Layout
    from radserve_export.network import Network
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

_TOOLS = ("radserve", "numpy", "onnx", "onnxruntime")


class Evaluate(Protocol):
    """Measures a staged repository through the whole path."""

    def __call__(self, staged: Path, spec: Spec, reference: Reference) -> dict[str, Any]:
        """Return what belongs into the manifest, or raise ExportError."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export did.

    Attributes:
        name: The public model.
        version: Its version.
        is_new: False where the same content was published already.
        parity: What the parity gate measured.
        evaluation: What was measured through the whole path.
        evidence: What was done about the model with evidence maps; None where there is none.
        notes: What to tell whoever exports it.
    """

    name: str
    version: int
    is_new: bool
    parity: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    evidence: Exported | None = None
    notes: tuple[str, ...] = ()


def export(
    spec_path: Path,
    repository: Path,
    *,
    model: Path | None = None,
    trust: bool = False,
    custom_objects: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    evaluate: Evaluate | None = None,
    progress: Callable[[str], None] = lambda _stage: None,
) -> Exported:
    """Export one model.

    Args:
        spec_path: The spec.
        repository: The model repository; made if it is not there.
        model: Another model file than the spec's.
        trust: Take formats that cannot be looked at in full (HDF5), and a
            system that cannot confine the process that loads the model.
        custom_objects: ``module:NAME`` of classes and functions that the model may name.
        limits: What the process that loads the model may use.
        evaluate: Measures the staged model; None skips it.
        progress: Told which stage begins.

    Raises:
        ExportError: Nothing was published; the message says why.
    """
    progress("reading the spec")
    spec = load_spec(spec_path)
    check_companions(spec, repository)  # and again under the lock: another export may be at work
    tokenizer = read_tokenizer(spec_path.parent / spec.tokenizer) if spec.tokenizer else None
    conversion = conversion_of(spec, tokenizer)
    progress("loading and converting the model")
    with ExitStack() as until_published:
        path = model or spec_path.parent / spec.model
        network = until_published.enter_context(
            converted_network(path, conversion, trust=trust, custom_objects=custom_objects, limits=limits)
        )
        tokenizer = tokenizer_of(spec, network, tokenizer)
        check_fit(spec, network, tokenizer)
        network = lower_precision(spec, network, tokenizer)
        if spec.calibrate is not None:
            progress("fitting the temperature on held-out data")
        spec, calibration = calibrate_on_held_out(spec, spec_path.parent, network, tokenizer)
        progress("comparing with Keras")
        wanted = public_models(spec, network)
        checked = [_check(one, network, spec_path.parent, tokenizer, calibration) for one in wanted]
        if spec.reference is not None:
            progress("measuring the reference population")
        population = measure_population(spec, spec_path.parent, checked[0].steps, tokenizer)
        checked = [replace(one, population=population) for one in checked]
        progress("writing the repository")
        with repo.locked(repository), repo.staging(repository) as staged:
            check_companions(spec, repository)
            done, new = [], []
            for one in checked:
                exported = _unchanged(one, repository, evaluate)
                if exported is None:
                    manifest = _stage(one, repository, staged / one.spec.name, evaluate, progress)
                    new.append(manifest)
                    exported = _exported(one, manifest.version, manifest.evaluation, is_new=True)
                done.append(exported)
            progress("publishing")
            if spec.evidence and done[1].version > done[0].version:
                keep_number(repository, done[1].name, done[1].version, staged)
            _publish(new, repository, staged, spec.serving.versions_kept)
    note = missing(spec)
    return replace(done[0], evidence=done[1] if spec.evidence else None, notes=(note,) if note else ())


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """A model that passed everything that needs no server."""

    spec: Spec
    network: Network
    steps: Sequence[Step]
    reference: Reference
    parity: dict[str, Any]
    calibration: dict[str, Any] | None
    population: Population | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The ensemble, then its steps."""
        return (self.spec.name, *(step.name for step in self.steps))

    def layout(self, repository: Path, version: int) -> Layout:
        """Every file of a version."""
        return lay_out(self.spec, self.network, self.steps, repository, version, population=self.population)


def _check(
    spec: Spec, network: Network, folder: Path, tokenizer: TextTokenizer | None, calibration: dict[str, Any] | None
) -> _Checked:
    """Build a model's steps, and let them answer beside the original."""
    wire = check_fit(spec, network, tokenizer)
    steps = build_steps(spec, network, wire, tokenizer)
    reference = Reference(spec, network, tokenizer)
    first = next(step for step in steps if step.graph is not None)
    real = real_batches(spec, folder, first.inputs, tokenizer)
    stages = parity_stages(spec, network, steps, reference, tokenizer, real=real)
    if spec.evidence:
        stages = explained_stages(stages, spec, network)
    check_outputs(stages[0], spec)
    parity = measure_precision(stages, spec, check_parity(stages, spec=tolerant(spec)))
    return _Checked(
        spec=spec, network=network, steps=steps, reference=reference, parity=parity, calibration=calibration
    )


def _newest(checked: _Checked, repository: Path) -> int:
    return max(repo.newest_version(repository, name) for name in checked.models)


def _identical_version(checked: _Checked, repository: Path) -> int | None:
    """The newest version, if it consists of the same files."""
    version = _newest(checked, repository)
    if not version:
        return None
    files = checked.layout(repository, version).files
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return version if repo.is_published(repository, checked.spec.name, version, hashes) else None


def _still_good(spec: Spec, known: Mapping[str, Any] | None) -> bool:
    """Whether what was measured when the same files were published is what the spec asks for now."""
    plan = spec.evaluation
    if plan is None or known is None:
        return plan is None
    return bool(known["n"] == plan.samples and known["seed"] == plan.seed and known[spec.metric] >= plan.minimum)


def _terms(parity: Mapping[str, Any]) -> bytes:
    """What the gate compared on, and how closely."""
    tolerances = {name: (found.get("atol"), found.get("rtol")) for name, found in parity.get("outputs", {}).items()}
    named = ("seed", "batch_sizes", "lengths", "input_range", "real_inputs")
    return msgspec.json.encode([tolerances, [parity.get(name) for name in named]], order="sorted")


def _unchanged(checked: _Checked, repository: Path, evaluate: Evaluate | None) -> Exported | None:
    """What is published already, if it is the same, and compared and measured as the spec asks."""
    version = _identical_version(checked, repository)
    if version is None:
        return None
    known = repo.manifest_of(repository, checked.spec.name, version)
    is_good = evaluate is None or _still_good(checked.spec, known.evaluation)
    is_good = is_good and _terms(known.parity) == _terms(checked.parity)
    return _exported(checked, version, known.evaluation, is_new=False) if is_good else None


def _exported(checked: _Checked, version: int, evaluation: Mapping[str, Any] | None, *, is_new: bool) -> Exported:
    return Exported(
        name=checked.spec.name, version=version, is_new=is_new, parity=checked.parity, evaluation=evaluation
    )


def _stage(
    checked: _Checked, repository: Path, staged: Path, evaluate: Evaluate | None, progress: Callable[[str], None]
) -> Manifest:
    """Write a model's next version into a folder of its own, and measure it there."""
    spec, network = checked.spec, checked.network
    version = _newest(checked, repository) + 1
    if spec.evidence:  # numbers of maps that were given up before are not used again
        plain = spec.name.removesuffix(SUFFIX)
        version = max(version, repo.newest_version(repository, plain) + 1, kept_number(repository, spec.name) + 1)
    layout = checked.layout(repository, version)
    manifest = Manifest(
        name=spec.name,
        version=version,
        models=layout.models,
        files=repo.write_staged(staged, layout.files),
        source_sha256=network.source_sha256,
        tools=network.tools | {name: installed_version(name) for name in _TOOLS},
        parity=checked.parity,
        calibration=checked.calibration,
    )
    repo.write_staged_manifest(staged, manifest)
    if evaluate is not None and spec.evaluation is not None:
        progress("measuring accuracy through the whole path")
        repo.add_older_versions(staged, repository, manifest)
        manifest = msgspec.structs.replace(manifest, evaluation=evaluate(staged, spec, checked.reference))
        repo.write_staged_manifest(staged, manifest)
    return manifest


def _publish(new: Sequence[Manifest], repository: Path, staged: Path, keep: int) -> None:
    """Publish all or none; the plain model, which is the first, last."""
    published: list[Manifest] = []
    try:
        for manifest in reversed(new):
            publish(staged / manifest.name, repository, manifest)
            published.append(manifest)
    except BaseException:
        for manifest in published:
            withdraw(repository, manifest, staged / manifest.name)
        raise
    for manifest in new:
        prune(repository, manifest.name, keep, staged / manifest.name)
