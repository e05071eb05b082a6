"""Whether a Triton must be started anew: the liveness probe of ``deploy/kubernetes``.

Run it in Triton's container, ``python -m radserve_server.probe``; exit status 1
means that only a new start helps. Readiness is another question, which
``radserve health`` answers: a server that is busy, overloaded or leaving is not
ready, but alive.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from radserve.errors import DeadlineExceededError, InferenceFailedError, RadserveError

if TYPE_CHECKING:
    from radserve.options import ClientOptions

_HTTP, _METRICS = "127.0.0.1:8000", "127.0.0.1:8002"
_CALL_S = 10.0
_OPENER = build_opener(ProxyHandler({}))  # http_proxy is for elsewhere
_CANARY_S = 30.0
_FINISHED = r'^nv_inference_request_(?:success|failure)\{{[^}}]*model="{}"[^}}]*\}} (\S+)$'


def why_dead(options: ClientOptions, http: str = _HTTP, metrics: str = _METRICS) -> str | None:
    """Why a Triton answers no more until it is started anew; None while it may.

    Triton never restarts a model's process: one that died fails every request
    at once, one that hangs lets every request wait. A model that is only busy
    finishes requests meanwhile.

    Args:
        options: How to reach it, and how long the canaries of all models may take together.
        http: ``host:port`` of its HTTP service.
        metrics: ``host:port`` of its metrics.
    """
    from radserve import Client  # noqa: PLC0415 - gRPC is slow to import

    try:
        _read(http, "/v2/health/live")
        before = _read(metrics, "/metrics")
    except (URLError, OSError) as error:
        return f"Triton does not answer: {error}"
    with Client(options=options) as client:
        try:
            client.health()
        except InferenceFailedError as error:
            return str(error)
        except DeadlineExceededError as error:
            model = error.model or ""
            if model and _finished(before, model) == _finished(_read(metrics, "/metrics"), model):
                return f"model {model} finished no request within {options.timeout_s:g} s"
        except RadserveError:
            return None  # overloaded, leaving or not yet there: not for this probe to judge
    return None


def _read(address: str, path: str) -> str:
    with _OPENER.open(f"http://{address}{path}", timeout=_CALL_S) as answer:
        return str(answer.read(), "utf-8")


def _finished(metrics: str, model: str) -> float:
    return sum(float(value) for value in re.findall(_FINISHED.format(re.escape(model)), metrics, re.MULTILINE))


def main() -> int:
    """The probe's exit status; where to find Triton, the variables RADSERVE_* say."""
    from radserve.options import ClientOptions  # noqa: PLC0415 - with the rest

    reason = why_dead(ClientOptions.load(timeout_s=_CANARY_S))
    if reason is not None:
        print(reason, file=sys.stderr)  # noqa: T201 - what Kubernetes shows of a probe
    return int(reason is not None)


if __name__ == "__main__":
    sys.exit(main())
