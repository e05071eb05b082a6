"""What a running deployment is, permits and answers, and what is wrong with it in plain words."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from radserve.client import Client
from radserve.contracts import CONTRACT_PARAMETER
from radserve.errors import ContractError, RadserveError
from radserve.options._address import is_loopback
from radserve.telemetry import one_line
from radserve_server.checks import Check, Status
from radserve_server.reach import reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from radserve.options import ClientOptions

FLOOR, FLOOR_RELEASE = (2, 71), "26.07"
"""The oldest Triton for production; deploy/SECURITY.md says why."""
_EMBEDDED = (2, 51)
_SLOW_S = 2.5  # the gateway takes a replica out of service whose canary takes 5 s
_SKEW_S = 30.0
_NOBODY = "radserve-doctor-asks-whether-this-is-closed"
_PLAIN_ENGLISH = 200
_Code = grpc.StatusCode

# What changes a server, asked so that nothing changes: states are read, and a model that is not there is unloaded.
_CLOSED: dict[str, list[tuple[str, Any]]] = {
    "loading of models": [("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=_NOBODY))],
    "shared memory": [
        ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
        ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()),
    ],
    "traces": [("TraceSetting", service_pb2.TraceSettingRequest())],
    "log settings": [("LogSettings", service_pb2.LogSettingsRequest())],
}
_SHUT = ("protocol is restricted", "load / unload is not allowed")


class _Deployment:
    """One address, and as whom it is asked."""

    def __init__(self, options: ClientOptions, channel: grpc.Channel) -> None:
        self.options = options
        self.url = options.endpoints[0]
        self.name = f"server {self.url}"
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.is_development = options.tls is None and is_loopback(self.url.rpartition(":")[0])

    def ask(self, method: str, request: Any, *, with_secret: bool = True) -> tuple[Any, dict[str, str]]:  # noqa: ANN401
        """The answer of one of Triton's methods, and its headers."""
        options, metadata = self.options, []
        if options.token is not None:
            metadata.append(("authorization", f"Bearer {options.token.read()}"))
        if with_secret and options.protocol_key is not None and options.protocol_secret is not None:
            key = f"triton-grpc-protocol-{options.protocol_key}".lower()
            metadata.append((key, options.protocol_secret.read()))
        call = getattr(self.stub, method)
        answer, done = call.with_call(request, timeout=options.timeout_s, metadata=metadata)
        return answer, {str(key): str(value) for key, value in done.initial_metadata() or ()}

    def check(self, topic: str, status: Status, detail: str, fix: str = "") -> Check:
        """A check of this address; whatever a server told in it stays one line of text."""
        return Check(f"{self.name}, {one_line(topic)}", status, one_line(detail), one_line(fix))


def _now() -> float:
    return time.time()


def examine(options: ClientOptions, models: Iterable[str] = ()) -> list[Check]:
    """Checks of one running deployment.

    Args:
        options: How it is reached; of several endpoints the first.
        models: Public models to ask; none takes all of them, where the caller may list them.
    """
    url = options.endpoints[0]
    name = f"server {url}"
    tls = None if options.tls is None else options.tls.current()
    try:
        client = Client(options=options)
    except RadserveError as error:
        return [Check(name, Status.BROKEN, str(error))]
    checks = reach(name, url, tls, timeout_s=min(options.timeout_s, 10.0))
    if any(check.status is Status.BROKEN for check in checks):
        client.close()
        return checks
    if tls is None:
        channel = grpc.insecure_channel(url, options=[("grpc.enable_http_proxy", 0)])
    else:
        credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
        channel = grpc.secure_channel(url, credentials, options=[("grpc.enable_http_proxy", 0)])
    with client, channel:
        deployment = _Deployment(options, channel)
        return [*checks, *_asked(deployment, client, tuple(models))]


def _asked(deployment: _Deployment, client: Client, models: tuple[str, ...]) -> Iterator[Check]:
    if deployment.options.tls is None and not deployment.is_development:
        yield deployment.check(
            "plain text",
            Status.BROKEN,
            "patients' data travel readable",
            "put the gateway before it, which encrypts, and reach it with --tls-ca",
        )
    try:
        before = _now()
        metadata, headers = deployment.ask("ServerMetadata", service_pb2.ServerMetadataRequest())
        taken_s = _now() - before
    except grpc.RpcError as error:
        yield _refused(deployment, error)
        return
    yield _version(deployment, metadata.version)
    with suppress(KeyError, TypeError, ValueError, OverflowError):  # Triton itself tells no time
        yield _clock(deployment, parsedate_to_datetime(headers["date"]), before + taken_s / 2)
    yield from (_closed(deployment, what, calls) for what, calls in _CLOSED.items())
    try:
        index = deployment.ask("RepositoryIndex", service_pb2.RepositoryIndexRequest())[0].models
    except grpc.RpcError:
        may = "may ask the models, but not list them"
        unasked = "" if models else "name models with --model, or come as an operator, to have them asked"
        yield deployment.check("permissions", Status.OK if models else Status.ABSENT, f"this caller {may}", unasked)
        index = []
    else:
        yield deployment.check("permissions", Status.OK, "this caller is an operator: it may list the models")
    yield from _unloadable(deployment, index)
    for model in models or _public(deployment, sorted({one.name for one in index if one.state == "READY"})):
        yield _model(deployment, client, model)


def _refused(deployment: _Deployment, error: grpc.RpcError) -> Check:
    """Why the first question was not answered."""
    code, details = error.code(), one_line(error.details() or "")[:_PLAIN_ENGLISH]
    if code in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
        fix = (
            "give one: the variable RADSERVE_TOKEN, or token_file"
            if deployment.options.token is None
            else "get another: this one is wrong, has expired, or is for another audience or issuer"
        )
        return deployment.check("permissions", Status.BROKEN, f"this caller's token is refused ({details})", fix)
    if code is _Code.UNIMPLEMENTED:
        return deployment.check("Triton", Status.BROKEN, "what answers is no Triton", "check address and port")
    if code is _Code.RESOURCE_EXHAUSTED:
        return deployment.check("Triton", Status.BROKEN, f"overloaded ({details})", "ask again later")
    return deployment.check(
        "Triton",
        Status.BROKEN,
        f"does not answer ({code.name}: {details})",
        "see Triton's log; behind a gateway no replica may be healthy: deploy/OPERATIONS.md",
    )


def _version(deployment: _Deployment, version: str) -> Check:
    numbers = tuple(int(number) for number in re.findall(r"\d{1,9}", version)[:2])
    if numbers >= FLOOR:
        return deployment.check("Triton", Status.OK, f"version {version}")
    which = ", the embedded server's," if numbers == _EMBEDDED else ""
    detail = f"version {version}{which} lacks the security fixes of {FLOOR_RELEASE} ({'.'.join(map(str, FLOOR))})"
    if deployment.is_development:
        return deployment.check("Triton", Status.WARNING, f"{detail}: for development on this machine alone")
    fix = f"set TRITON_IMAGE in deploy/versions/versions.env to {FLOOR_RELEASE} or later, and roll it out"
    fix += " (radserve cluster has no other: for rehearsal alone)" if numbers == _EMBEDDED else ""
    return deployment.check("Triton", Status.BROKEN, detail, fix)


def _clock(deployment: _Deployment, there: datetime, here: float) -> Check:
    skew_s = round(there.timestamp() - here)
    if abs(skew_s) <= _SKEW_S:
        return deployment.check("clock", Status.OK, f"within {_SKEW_S:g} s of this machine's")
    which = "ahead of" if skew_s > 0 else "behind"
    fix = "set both by NTP: else tokens and certificates are refused or live on"
    return deployment.check("clock", Status.WARNING, f"{abs(skew_s)} s {which} this machine's", fix)


def _closed(deployment: _Deployment, what: str, calls: list[tuple[str, Any]]) -> Check:
    topic = f"closed: {what}"
    open_to_all, unclear = [], []
    for method, request in calls:
        try:
            deployment.ask(method, request, with_secret=False)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code in (_Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED, _Code.UNAUTHENTICATED):
                continue
            if code in (_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED, _Code.DEADLINE_EXCEEDED):
                if not any(words in details for words in _SHUT):
                    unclear.append(f"{method}: {code.name}")
                continue
        open_to_all.append(method)
    if open_to_all and deployment.is_development:
        return deployment.check(topic, Status.WARNING, "open to all on this machine: for development alone")
    if open_to_all:
        fix = "let nobody past the gateway (deploy/envoy), and start Triton as deploy/docker/entrypoint does"
        return deployment.check(topic, Status.BROKEN, f"open to whoever gets here: {', '.join(open_to_all)}", fix)
    if unclear:
        return deployment.check(topic, Status.WARNING, f"cannot be told ({', '.join(unclear)})", "ask again")
    return deployment.check(topic, Status.OK, "closed to this caller")


def _unloadable(deployment: _Deployment, index: Iterable[Any]) -> Iterator[Check]:
    """Models of which no version is served, and not because they were unloaded."""
    served = {one.name for one in index if one.state == "READY"}
    reasons = {one.name: one.reason for one in index if one.name not in served and one.reason not in ("", "unloaded")}
    for name, reason in sorted(reasons.items()):
        told = f"not served: {one_line(reason)[:_PLAIN_ENGLISH]}"
        yield deployment.check(f"model {name}", Status.BROKEN, told, "see Triton's log; radserve check the repository")


def _public(deployment: _Deployment, names: list[str]) -> Iterator[str]:
    for name in names:
        try:
            is_public = CONTRACT_PARAMETER in _config(deployment, name).parameters
        except grpc.RpcError:
            is_public = True  # whoever asks it next is told what is wrong
        if is_public:
            yield name


def _config(deployment: _Deployment, model: str) -> Any:  # noqa: ANN401 - a message of generated code
    return deployment.ask("ModelConfig", service_pb2.ModelConfigRequest(name=model))[0].config


def _model(deployment: _Deployment, client: Client, name: str) -> Check:
    """Whether a model's contract can be read, it answers, and its queues have an end."""
    topic = f"model {name}"
    try:
        contract = client.model(name).contract
        taken_s = client.health(name)[name]
        steps = [step.model_name for step in _config(deployment, name).ensemble_scheduling.step]
        endless = [step for step in steps if _is_endless(_config(deployment, step))]
    except ContractError as error:
        fix = "export the model with this radserve, or install the radserve that exported it"
        return deployment.check(topic, Status.BROKEN, str(error), fix)
    except RadserveError as error:
        return deployment.check(topic, Status.BROKEN, str(error), "see Triton's log; a restart heals a dead model")
    except grpc.RpcError as error:
        return deployment.check(topic, Status.BROKEN, f"a step's configuration: {error.code().name}", "ask again")
    told = f"version {contract.version} answers in {1000 * taken_s:.0f} ms"
    if taken_s > _SLOW_S:
        fix = f"the gateway leaves a replica out whose canary takes 5 s: less load, or {deployment.name} needs replicas"
        return deployment.check(topic, Status.WARNING, told, fix)
    if endless:
        fix = "set default_queue_policy: max_queue_size and default_timeout_microseconds, as the exporter does"
        told += f"; without limit or timeout is the queue of {', '.join(endless)}"
        return deployment.check(topic, Status.WARNING, told, fix)
    return deployment.check(topic, Status.OK, told)


def _is_endless(config: Any) -> bool:  # noqa: ANN401 - a message of generated code
    """Whether requests may wait for a step without end, or as many as there are."""
    if not config.max_batch_size:
        return False  # no dynamic batching, so no limits either
    policy = config.dynamic_batching.default_queue_policy
    return not (policy.max_queue_size and policy.default_timeout_microseconds)
