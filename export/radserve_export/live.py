"""Asks running servers to load what lies in their repository."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tritonclient.grpc as triton
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from radserve.contracts import CONTRACT_PARAMETER, parse_contract
from radserve.contracts.manifest import MANIFEST, hash_file, read_manifest, version_folders
from radserve.errors import (
    ContractError,
    DeadlineExceededError,
    InferenceFailedError,
    ModelNotFoundError,
    RepositoryError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.options._address import is_loopback
from radserve_export.evidence import SUFFIX
from radserve_export.repository import no_such_model
from radserve_export.versions import fits, read_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from radserve_export.triton_config import ModelConfig
    from radserve_export.versions import Version

_ERRORS: dict[str, type[ServerError]] = {
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAVAILABLE": ServerUnavailableError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": UnauthenticatedError,
    "INVALID_ARGUMENT": RequestRejectedError,
}
# What Triton says, and what to do about it; all else is told in its own words.
_ADVICE = (
    ("protocol is restricted", "give --protocol-key, and its secret in RADSERVE_PROTOCOL_SECRET"),
    ("explicit model load / unload is not allowed", "start the server with --model-control-mode=explicit"),
    ("failed to poll from model repository", "the server's own log and 'radserve check' say why"),
)
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 2**29)]
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach the model repository service of a server.

    Attributes:
        tls_ca: File of the certificate authorities to trust; None connects without TLS.
        tls_certificate: File of the client's certificate chain, for mutual TLS.
        tls_key: File of the client's private key, for mutual TLS.
        insecure: Allow plain text to another machine.
        protocol_key: Key of Triton's ``--grpc-restricted-protocol``.
        protocol_secret: Its value.
        timeout_s: Longest wait for a model to be loaded.
    """

    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    insecure: bool = False
    protocol_key: str | None = None
    protocol_secret: str | None = None
    timeout_s: float = 120.0


def publish_to(url: str, repository: Path, name: str, access: Access, tell: Callable[[str], object]) -> int:
    """Let a server load the newest version of a public model, and wait until it is ready.

    The steps are loaded first: they serve the version before, too, until the
    public model goes over. What only that version needs is unloaded then, and
    evidence maps of an older network that the repository has no more.
    A server that is further behind gets the steps with the version that it
    serves, in place of the one before, until it has gone over.

    Args:
        url: ``host:port`` of the server's gRPC service.
        repository: The model repository, as this machine sees it.
        name: The public model.
        access: How to reach the server.
        tell: Takes a line about what cannot be served to its end, or is served no more.

    Returns:
        The version.

    Raises:
        RepositoryError: There is no such model.
        ServerError: The server cannot be reached, refuses, or does not get ready;
            the message says what to do.
    """
    folders = version_folders(repository / name)
    if not folders:
        raise no_such_model(repository, name)
    version = read_version(repository, name, int(folders[-1].name))
    number = version.manifest.version
    public = [model for model, config in version.configs.items() if config.HasField("ensemble_scheduling")]
    steps = [model for model in version.manifest.models if model not in public]
    with _server(url, access) as server:
        behind, lost = _bridged(repository, version, server.pins(public))
        for model, pinned in lost.items():
            tell(
                f"{url} serves version {pinned} of {name}, whose step {model} is pruned from {repository} or cannot be"
                f" served beside version {number}: requests can fail until version {number} is ready"
            )
        for model in steps:
            server.load(model, behind.get(model))
        for model in reversed(public):
            server.load(model)
        for model in public:
            wanted = version.configs[model].parameters[CONTRACT_PARAMETER].string_value
            server.check(model, number, wanted)
        if behind:
            server.wait_until_alone(public, number)
            for model in behind:  # by name alone it would stay as it is: nothing changed on the disk
                server.load(model, version.configs[model])
        server.unload(_superseded(folders, version.manifest.models), public, number)
        maps = f"{name}{SUFFIX}"
        if not (repository / maps).exists() and server.retire_maps(maps):
            tell(f"{url} no longer serves {maps}: {repository} has it no more")
    return number


def _bridged(
    repository: Path, version: Version, pins: Mapping[str, int]
) -> tuple[dict[str, ModelConfig], dict[str, int]]:
    """What keeps a server going that is more than one version behind.

    Args:
        repository: The model repository.
        version: The version to load.
        pins: The steps' versions that the server needs now.

    Returns:
        Configurations that serve what is needed now and the new version; and the
        pins of the steps for which there is none.
    """
    behind: dict[str, ModelConfig] = {}
    lost: dict[str, int] = {}
    for model, pinned in pins.items():
        config = version.configs.get(model)
        if config is None or pinned in config.version_policy.specific.versions:
            continue
        if not _can_be_kept(repository, version.manifest.name, model, pinned, config):
            lost[model] = pinned
            continue
        behind[model] = type(config)()
        behind[model].CopyFrom(config)
        del behind[model].version_policy.specific.versions[:]
        behind[model].version_policy.specific.versions.extend(sorted({pinned, version.manifest.version}))
    return behind, lost


def _can_be_kept(repository: Path, name: str, model: str, pinned: int, config: ModelConfig) -> bool:
    """Whether a step's older version is still there, and made for the configuration."""
    try:
        older = read_version(repository, name, pinned)
    except RepositoryError:
        return False
    files = {file: digest for file, digest in older.manifest.files.items() if file.startswith(f"{model}/{pinned}/")}
    whole = all((repository / file).is_file() and hash_file(repository / file) == files[file] for file in files)
    return bool(files) and whole and fits(config, older.configs[model])


def _superseded(folders: Sequence[Path], models: Sequence[str]) -> list[str]:
    """Models that an older version had and the newest has not, public ones first."""
    older: list[str] = []
    for folder in folders:
        with suppress(OSError, ValueError):  # what cannot be read is served by nothing, or was found before
            older += read_manifest(folder / MANIFEST).models
    return [model for model in dict.fromkeys(older) if model not in models]


@contextmanager
def _server(url: str, access: Access) -> Iterator[_Server]:
    if access.tls_ca is None and not access.insecure and not is_loopback(url.rpartition(":")[0]):
        msg = f"{url} is not this machine: give --tls-ca, or --insecure if the network is trusted"
        raise RequestRejectedError(msg)
    try:
        with triton.InferenceServerClient(
            url,
            ssl=access.tls_ca is not None,
            root_certificates=access.tls_ca,
            certificate_chain=access.tls_certificate,
            private_key=access.tls_key,
            channel_args=_OPTIONS,
        ) as client:
            yield _Server(client, url, access)
    except InferenceServerException as error:
        code = str(error.status()).rpartition(".")[2]
        raise _ERRORS.get(code, InferenceFailedError)(_told(url, str(error.message())), code=code) from error
    except OSError as error:
        msg = f"cannot read the certificate file {error.filename}: {error.strerror}"
        raise RequestRejectedError(msg) from error


def _told(url: str, message: str) -> str:
    line = " ".join(message.split())
    advice = next((advice for text, advice in _ADVICE if text in line), None)
    return f"{url}: {line}" + (f": {advice}" if advice else "")


class _Server:
    def __init__(self, client: Any, url: str, access: Access) -> None:  # noqa: ANN401 - untyped library
        self._client = client
        self._url = url
        headers = {f"triton-grpc-protocol-{access.protocol_key}": access.protocol_secret}
        self._options = {
            "headers": headers if access.protocol_key else None,
            "client_timeout": access.timeout_s,
        }
        self._timeout_s = access.timeout_s

    def load(self, model: str, config: ModelConfig | None = None) -> None:
        """Load a model, as its folder has it or with another configuration."""
        text = None if config is None else json_format.MessageToJson(config, preserving_proto_field_name=True)
        self._client.load_model(model, config=text, **self._options)

    def pins(self, public: Sequence[str]) -> dict[str, int]:
        """The steps' versions that public models need which are served now."""
        ready = {entry.name for entry in self._index() if entry.state == "READY" and entry.name in public}
        configs = [self._client.get_model_config(model, **self._options).config for model in sorted(ready)]
        return {step.model_name: step.model_version for one in configs for step in one.ensemble_scheduling.step}

    def check(self, model: str, version: int, contract: str) -> None:
        """The server must be ready with the contract that lies in the repository."""
        ready = self._client.is_model_ready(model, str(version), **self._options)
        config = self._client.get_model_config(model, **self._options).config if ready else None
        if config is None or config.parameters[CONTRACT_PARAMETER].string_value != contract:
            msg = (
                f"{self._url} does not serve version {version} of {model}: its repository is another one:"
                " copy this one to where the server reads it, and publish again"
            )
            raise ModelNotFoundError(msg, model=model, version=version)

    def wait_until_alone(self, public: Sequence[str], version: int) -> None:
        """Wait until no request needs an older version of the public models."""
        deadline = time.monotonic() + self._timeout_s
        while any(e.name in public and e.version != str(version) and _is_busy(e) for e in self._index()):
            if time.monotonic() > deadline:
                msg = f"{self._url} still serves an older version of {public[0]}: requests to it have not ended"
                raise DeadlineExceededError(msg, model=public[0])
            time.sleep(_POLL_S)

    def unload(self, models: Sequence[str], public: Sequence[str], version: int) -> None:
        """Unload steps that no version served needs, once the older public model is gone."""
        loaded = {entry.name for entry in self._index() if entry.state == "READY" and entry.name in models}
        if loaded:
            self.wait_until_alone(public, version)
        for model in models:
            if model in loaded:
                self._client.unload_model(model, **self._options)

    def retire_maps(self, model: str) -> bool:
        """Unload a model with evidence maps, then its steps; False if none of that name is served."""
        # The index lists none whose folder is gone: neither whether it is served, nor until when.
        if not self._client.is_model_ready(model, **self._options):
            return False
        config = self._client.get_model_config(model, **self._options).config
        try:
            contract = parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)
        except ContractError:
            return False
        if contract.evidence is None:
            return False
        for one in (model, *(step.model_name for step in config.ensemble_scheduling.step)):
            self._client.unload_model(one, **self._options)
        return True

    def _index(self) -> list[Any]:
        return list(self._client.get_model_repository_index(**self._options).models)


def _is_busy(entry: Any) -> bool:  # noqa: ANN401 - a protobuf message
    return entry.state in ("READY", "UNLOADING", "LOADING")
