"""Envoy's configuration: the one template ``envoy.yaml``, rendered for compose, Kubernetes and local."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from radserve.errors import InputError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from radserve.contracts import Contract

_TEMPLATE = Path(__file__).with_name("envoy.yaml")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_MAX_CANARY_BYTES = 2**16
_MARGIN_S = 30  # so that of two limits the one that says DEADLINE_EXCEEDED is reached first
_HARDLY_LIMITED = 100_000
_PEM = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """JSON Web Tokens of the hospital's identity provider.

    Attributes:
        issuer: What ``iss`` must be.
        audience: What ``aud`` must name.
        jwks: The provider's keys: a file, or an ``https`` address that the gateway asks.
        ca: The authorities that the address is trusted by; a file.
        operator_role: Who has it in the claim ``roles`` is an operator.
    """

    issuer: str
    audience: str
    jwks: str
    ca: str = "/etc/ssl/certs/ca-certificates.crt"
    operator_role: str = "radserve-operator"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A real inference that tells whether a replica answers.

    Attributes:
        request: A ``ModelInferRequest`` on harmless data, of the highest priority and of no version.
        answer: Bytes that only an answer of that model holds.
        model: Its name.
        lasts: Whether every release of it takes the request: that of a text model, whose texts are of any length.
    """

    request: bytes
    answer: bytes
    model: str
    lasts: bool


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What differs between the places where a gateway runs; paths are those that Envoy sees.

    Attributes:
        replicas: ``(host, port)`` of Triton's gRPC; of a name, every address is a replica.
        canary: Tells which of them are healthy.
        folder: Where the rendered files lie.
        certificates: Folder with the gateway's ``tls.crt`` and ``tls.key``, and ``ca.crt`` of its clients.
        upstream_certificates: Folder with the same three to reach the replicas; None for plain text on one machine.
        mutual_tls: Whether clients must show a certificate.
        tokens: Whose tokens they must show; None for none. One of both is a must, and both may be.
        operators: Subjects, or alternative names, of certificates that may also read the repository's index and
            statistics.
        address: Where it listens, with ``port``.
        port: For clients.
        metrics_address: Where Prometheus and probes come, with ``metrics_port``.
        metrics_port: For them.
        admin_port: Envoy's own interface, on loopback.
        requests_per_s: Of one client, lasting.
        burst: Of one client, at once.
        max_requests: In flight at the replicas together.
        max_request_bytes: Of one message; it is held in memory.
        max_heap_bytes: From this memory on requests are refused.
        max_deadline_s: The longest that an answer may take.
        canary_period_s: Between two canaries.
        canary_timeout_s: How long one may take: more than a batch of the slowest model.
        collector: ``(host, port)`` of the OpenTelemetry collector that takes spans by OTLP over gRPC; None for no
            spans.
    """

    replicas: tuple[tuple[str, int], ...]
    canary: Canary
    folder: str
    certificates: str
    upstream_certificates: str | None = None
    mutual_tls: bool = True
    tokens: Tokens | None = None
    operators: tuple[str, ...] = ("radserve-operator", "CN=radserve-operator")
    address: str = "0.0.0.0"  # noqa: S104 - hospital systems are to reach it
    port: int = 8443
    metrics_address: str = "0.0.0.0"  # noqa: S104 - Prometheus comes from elsewhere
    metrics_port: int = 9902
    admin_port: int = 9901
    requests_per_s: int = 500
    burst: int = 1000
    max_requests: int = 1024
    max_request_bytes: int = 64 * 2**20
    max_heap_bytes: int = 1536 * 2**20
    max_deadline_s: int = 300
    canary_period_s: float = 5.0
    canary_timeout_s: float = 5.0
    collector: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if not (self.mutual_tls or self.tokens):
            msg = "a gateway that asks nobody who he is, is none: ask for certificates, for tokens, or for both"
            raise InputError(msg)
        if not self.replicas:
            msg = "name at least one replica"
            raise InputError(msg)


def compose(canary: Canary) -> Gateway:
    """The gateway of ``deploy/compose.yaml``."""
    return _in_containers((("triton", 8001),), canary)


def kubernetes(canary: Canary) -> Gateway:
    """The gateway of ``deploy/kubernetes``; the headless Service's name is every ready replica."""
    return _in_containers((("triton-replicas", 8001),), canary)


def local(replicas: tuple[tuple[str, int], ...], canary: Canary, folder: Path) -> Gateway:
    """The gateway of ``radserve cluster``: on loopback, in plain text to its replicas, hardly limited."""
    return Gateway(
        replicas=replicas,
        canary=canary,
        folder=str(folder),
        certificates=str(folder / "certificates"),
        address="127.0.0.1",
        metrics_address="127.0.0.1",
        requests_per_s=_HARDLY_LIMITED,
        burst=_HARDLY_LIMITED,
        canary_period_s=1.0,
        canary_timeout_s=3.0,
    )


def _in_containers(replicas: tuple[tuple[str, int], ...], canary: Canary) -> Gateway:
    return Gateway(
        replicas=replicas,
        canary=canary,
        folder="/etc/envoy",
        certificates="/run/secrets/gateway",
        upstream_certificates="/run/secrets/client",
    )


def render(gateway: Gateway) -> dict[str, str]:
    """The files of a gateway, by name: ``envoy.yaml``, and one for each secret that it names."""
    head = "# Rendered by radserve_server/gateway.py: change deploy/radserve_server/envoy.yaml, then render it again.\n"
    files = {"envoy.yaml": head + fill(_TEMPLATE.read_text(), _values(gateway))}
    for secret in _secrets(gateway):
        files[f"{secret['name']}.yaml"] = json.dumps({"resources": [secret]}, indent=2) + "\n"
    return files


def write(gateway: Gateway, folder: Path) -> None:
    """Write a gateway's files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render(gateway).items():
        (folder / name).write_text(text)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A template with its values as JSON, and only those blocks whose value is true.

    Args:
        template: Lines; ``${name}`` is replaced, except in lines that are comments. ``#? name`` or ``#? not name``
            begins a block, ``#? end`` ends it; blocks may hold others.
        values: By name.

    Raises:
        KeyError: A value is missing.
        ValueError: A block has no end, or no beginning.
    """
    lines: list[str] = []
    kept = [True]
    for line in template.splitlines():
        text = line.strip()
        is_kept = kept[-1:] == [True]
        if text == "#? end":
            kept = kept[:-1]
        elif text.startswith("#? "):
            *negated, name = text.split()[1:]
            kept.append(is_kept and bool(values[name]) is not bool(negated))
        elif is_kept and text.startswith("#"):
            lines.append(line)
        elif is_kept:
            lines.append(_PLACEHOLDER.sub(lambda found: json.dumps(values[found[1]]), line))
    if kept != [True]:
        msg = "a block of the template has no end, or no beginning"
        raise ValueError(msg)
    return "\n".join(lines) + "\n"


def _values(gateway: Gateway) -> dict[str, Any]:
    tokens = gateway.tokens
    remote = urlsplit(tokens.jwks) if tokens and tokens.jwks.startswith("https://") else None
    endpoints = [{"address": {"socket_address": {"address": h, "port_value": p}}} for h, p in gateway.replicas]
    return {
        "admin_port": gateway.admin_port,
        "address": gateway.address,
        "port": gateway.port,
        "metrics_address": gateway.metrics_address,
        "metrics_port": gateway.metrics_port,
        "max_heap_bytes": gateway.max_heap_bytes,
        "max_deadline": f"{gateway.max_deadline_s}s",
        "idle": f"{gateway.max_deadline_s + _MARGIN_S}s",
        "max_request_bytes": gateway.max_request_bytes,
        "max_requests": gateway.max_requests,
        "too_large": f"the message is larger than max_request_bytes of the gateway, {gateway.max_request_bytes}",
        "requests_per_s": gateway.requests_per_s,
        "burst": gateway.burst,
        "mutual_tls": gateway.mutual_tls,
        "upstream_tls": gateway.upstream_certificates is not None,
        **{f"{name}_secret": f"{gateway.folder}/{name}.yaml" for name in ("gateway", "clients", "client", "replicas")},
        "operators": _operators(gateway),
        "endpoints": [{"endpoint": endpoint} for endpoint in endpoints],
        "canary_period": f"{gateway.canary_period_s:g}s",
        "canary_timeout": f"{gateway.canary_timeout_s:g}s",
        "canary_request": _framed(gateway.canary.request).hex(),
        "canary_answer": gateway.canary.answer.hex(),
        "collector": gateway.collector is not None,
        "collector_host": gateway.collector and gateway.collector[0],
        "collector_port": gateway.collector and gateway.collector[1],
        "jwt": tokens is not None,
        "jwt_issuer": tokens and tokens.issuer,
        "jwt_audience": tokens and tokens.audience,
        "jwks_file": tokens.jwks if tokens and remote is None else None,
        "jwks_url": remote and remote.geturl(),
        "jwks_host": remote and remote.hostname,
        "jwks_port": remote and (remote.port or 443),
        "jwks_ca": tokens and tokens.ca,
    }


def _operators(gateway: Gateway) -> list[dict[str, Any]]:
    """Envoy's principals that may read index and statistics; nobody where none is named."""
    found: list[dict[str, Any]] = []
    if gateway.tokens:
        role = {"string_match": {"exact": gateway.tokens.operator_role}}
        matcher = {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "claims"}, {"key": "roles"}],
            "value": {"list_match": {"one_of": role}},
        }
        found.append({"sourced_metadata": {"metadata_matcher": matcher}})
    elif gateway.mutual_tls:
        found += [{"authenticated": {"principal_name": {"exact": name}}} for name in gateway.operators]
    return found or [{"not_id": {"any": True}}]


def _secrets(gateway: Gateway) -> list[dict[str, Any]]:
    """Keys, certificates and authorities by name, read again when a file in their folder is replaced."""

    def named(name: str, folder: str, kind: str, files: dict[str, str]) -> dict[str, Any]:
        paths: dict[str, Any] = {field: {"filename": f"{folder}/{file}"} for field, file in files.items()}
        type_name = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        return {"@type": type_name, "name": name, kind: {**paths, "watched_directory": {"path": folder}}}

    certificate, key, ca = _PEM
    pair = {"certificate_chain": certificate, "private_key": key}
    found = [named("gateway", gateway.certificates, "tls_certificate", pair)]
    if gateway.mutual_tls:
        found.append(named("clients", gateway.certificates, "validation_context", {"trusted_ca": ca}))
    if gateway.upstream_certificates is not None:
        found.append(named("client", gateway.upstream_certificates, "tls_certificate", pair))
        replicas = named("replicas", gateway.upstream_certificates, "validation_context", {"trusted_ca": ca})
        names = [{"san_type": "DNS", "matcher": {"exact": "triton"}}]
        replicas["validation_context"]["match_typed_subject_alt_names"] = names
        found.append(replicas)
    return found


def _framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def canary_of(repository: Path, model: str | None = None) -> Canary:
    """A canary of a model repository.

    Args:
        repository: Its folder.
        model: A public model; None takes a text model, else the one with the smallest request.

    Raises:
        RepositoryError: There is no such model, or its request is too large to be written into a configuration.
    """
    made = canary_among(_contracts(repository), model)
    if made is None:
        msg = f"{repository} has no public model {model or ''}".rstrip()
        raise RepositoryError(msg)
    if len(made.request) > _MAX_CANARY_BYTES:
        msg = (
            f"a canary of {len(made.request)} bytes is too large for a configuration: name a model with a smaller input"
        )
        raise RepositoryError(msg)
    return made


def canary_among(contracts: Iterable[Contract], model: str | None = None) -> Canary | None:
    """As ``canary_of``, among contracts, of any size; None where the model is not among them."""
    made = [_canary(contract) for contract in contracts if model in (None, contract.name)]
    return min(made, key=lambda one: (not one.lasts, len(one.request), one.model), default=None)


def _canary(contract: Contract) -> Canary:
    from radserve.contracts import TextInput  # noqa: PLC0415 - with the rest

    name = contract.name
    # An answer begins with its model's name: field 1, a string.
    answer = b"\x0a" + bytes([len(name)]) + name.encode()
    return Canary(request=_request(contract), answer=answer, model=name, lasts=isinstance(contract.input, TextInput))


def _contracts(repository: Path) -> list[Contract]:
    from google.protobuf import text_format  # noqa: PLC0415 - slow to import
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415 - likewise

    from radserve.contracts import CONTRACT_PARAMETER, parse_contract  # noqa: PLC0415 - with the rest

    found = []
    for path in sorted(repository.glob("*/config.pbtxt")):
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        if CONTRACT_PARAMETER in config.parameters:
            found.append(parse_contract(config.parameters[CONTRACT_PARAMETER].string_value))
    return found


def _request(contract: Contract) -> bytes:
    """A request on zeros, or the text "canary"; without a version, so that it outlives every release."""
    from tritonclient.grpc import service_pb2  # noqa: PLC0415 - slow to import

    request = service_pb2.ModelInferRequest(model_name=contract.name, id="canary")
    request.parameters["priority"].uint64_param = 1
    for tensor in contract.inputs:
        shape = [1] * (contract.max_batch_size > 0) + [max(dim, 1) for dim in tensor.dims]
        count = 1
        for dim in shape:
            count *= dim
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.value, shape=shape)
        dtype = tensor.dtype.numpy
        text = len(b"canary").to_bytes(4, "little") + b"canary"
        request.raw_input_contents.append(text * count if dtype.hasobject else bytes(count * dtype.itemsize))
    return bytes(request.SerializeToString(deterministic=True))
