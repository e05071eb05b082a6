"""Options from a configuration file and from the environment.

A file is text in the form of ``configparser`` (which every Python that this SDK
runs on has), with one section::

    [radserve]
    endpoints = triton-a.local:8001, triton-b.local:8001
    tls_ca = /etc/radserve/ca.pem
    token_file = /run/secrets/triton-token
    timeout_s = 20

Each setting is also an environment variable, its name in capitals behind
``RADSERVE_``. A secret itself stands in a variable or in a file of its own,
never in the configuration file.
"""

from __future__ import annotations

import configparser
import logging
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from radserve.audit import AuditLog
from radserve.contracts import Policy
from radserve.errors import InputError
from radserve.options._credentials import TLS, Secret, content_of
from radserve.options._policies import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
_PREFIX = "RADSERVE_"
_SECTION = "radserve"
_log = logging.getLogger("radserve")
_told: set[str] = set()


def _endpoints(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    return tuple(part.strip() if isinstance(part, str) else part for part in parts)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    return configparser.ConfigParser.BOOLEAN_STATES[str(value).lower()]


def _number(value: Any) -> float:  # noqa: ANN401 - whatever a caller gives
    return float(value)


def _whole(value: Any) -> int:  # noqa: ANN401 - whatever a caller gives
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _policy(value: object) -> Policy:
    return Policy(value.lower() if type(value) is str else value)


# Each setting: how its text is read, and what it must be.
SETTINGS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "endpoints": (_endpoints, "host:port, several separated by commas"),
    "tls": (_switch, "yes or no: encrypt, trusting gRPC's own authorities where tls_ca names none"),
    "tls_ca": (Path, "a PEM file"),
    "tls_key": (Path, "a PEM file"),
    "tls_cert": (Path, "a PEM file"),
    "token_file": (Path, "a file"),
    "protocol_key": (str, "a name"),
    "protocol_secret_file": (Path, "a file"),
    "insecure": (_switch, "yes or no"),
    "timeout_s": (_number, "seconds"),
    "retry_attempts": (_whole, "a whole number"),
    "retry_first_backoff_s": (_number, "seconds"),
    "retry_longest_backoff_s": (_number, "seconds"),
    "retry_overload": (_switch, "yes or no"),
    "shared_memory": (_switch, "yes or no"),
    "keepalive_s": (_number, "seconds"),
    "keepalive_permitted": (_switch, "yes or no"),
    "max_message_bytes": (_whole, "a whole number"),
    "coalesce": (_whole, "a whole number"),
    "burned_in_annotation": (_policy, "refuse or accept"),
    "audit_file": (Path, "a file"),
    "audit_key_file": (Path, "a file"),
    "audit_actor": (str, "a name"),
}
# Variables that hold the secret itself.
SECRETS = ("token", "protocol_secret")
_RETRY = {
    "retry_attempts": "attempts",
    "retry_first_backoff_s": "first_backoff_s",
    "retry_longest_backoff_s": "longest_backoff_s",
    "retry_overload": "retry_overload",
}
_AUDIT = ("audit_file", "audit_key_file", "audit_actor")
_FILES = ("token_file", "protocol_secret_file")
_OBJECTS = {"tls": TLS, "token": Secret, "protocol_secret": Secret, "retry": RetryPolicy, "audit": AuditLog}
_MADE_BY = {
    "tls": 'TLS.from_files("ca.pem")',
    "token": 'Secret.from_file("token")',
    "protocol_secret": 'Secret.from_file("key")',
    "retry": "RetryPolicy(attempts=5)",
    "audit": 'AuditLog("audit.jsonl", site_key=..., actor=...)',
}


def load(
    make: Callable[..., T], *, file: str | Path | None, environ: Mapping[str, str] | None, given: Mapping[str, object]
) -> T:
    """Call ClientOptions, with each argument from the first place that has it.

    Raises:
        InputError: A setting is unknown, malformed or given twice, or a file cannot be read.
    """
    environment = os.environ if environ is None else environ
    where = file if file is not None else environment.get(f"{_PREFIX}CONFIG") or None
    from_file = {} if where is None else _settings_of(Path(where))
    found = [_given(given), _of_environment(environment), from_file]
    _tell_misspelt(environment)
    merged = _merge(found)
    try:
        return make(**_arguments(merged))
    except InputError as error:
        arguments, from_variables, _ = found
        places = [f"{_PREFIX}{name.upper()}" for name in from_variables if name not in arguments]
        places += [f"{name} in {where}" for name in from_file if name not in {*arguments, *from_variables}]
        about = [place for place in places if _is_about(str(error), place, merged)]
        msg = f"{error} ({', '.join(about)})" if about else str(error)
        raise InputError(msg) from None


def _is_about(message: str, place: str, merged: Mapping[str, Any]) -> bool:
    """Whether a refusal speaks of what stands at a place, by its name or as its file."""
    name = place.partition(" in ")[0].removeprefix(_PREFIX).lower()
    words = {name, _RETRY.get(name, name)} | ({str(merged[name])} if isinstance(merged.get(name), Path) else set())
    return any(re.search(rf"(?<![\w/]){re.escape(word)}(?![\w/])", message) for word in words)


def check_objects(options: object) -> None:
    """Refuse a path, say, in the place of the certificates that it holds.

    Raises:
        InputError: An attribute is not of its type.
    """
    for name, kind in _OBJECTS.items():
        value = getattr(options, name)
        if not isinstance(value, kind) and not (value is None and name != "retry"):
            raise InputError(_must_be(name))


def _must_be(name: str) -> str:
    kind = _OBJECTS[name].__name__
    return f"{name} must be {'an' if kind[0] == 'A' else 'a'} {kind}, for example {_MADE_BY[name]}"


def _tell_misspelt(environ: Mapping[str, str]) -> None:
    """Log a variable that is nearly one of ours, once; Kubernetes makes quite other ones of a service's name."""
    known = (*SETTINGS, *SECRETS, "config")
    for variable in sorted(set(environ) - _told):
        name = variable.removeprefix(_PREFIX).lower()
        if variable.startswith(_PREFIX) and name not in known and (close := get_close_matches(name, known, 1, 0.8)):
            _told.add(variable)
            _log.warning("no setting is read from %s: did you mean %s?", variable, _PREFIX + close[0].upper())


def _settings_of(path: Path) -> dict[str, Any]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the configuration file {path}: {error.strerror}"
        raise InputError(msg) from None
    except (configparser.Error, UnicodeDecodeError):
        msg = f'{path} is no configuration file: begin with "[{_SECTION}]", then one "name = value" a line'
        raise InputError(msg) from None
    if parser.sections() != [_SECTION] or parser.defaults():
        msg = f"{path} must have one section, [{_SECTION}]"
        raise InputError(msg)
    return {name: _read(name, value, f"{name} in {path}") for name, value in parser[_SECTION].items()}


def _of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in SETTINGS:
        variable = f"{_PREFIX}{name.upper()}"
        if environ.get(variable):
            found[name] = _read(name, environ[variable], variable)
    for name in SECRETS:
        variable = f"{_PREFIX}{name.upper()}"
        if environ.get(variable):
            found[name] = Secret.from_environment(variable, environ)
    return found


def _given(given: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _OBJECTS and value is not None and not isinstance(value, bool | _OBJECTS[name]):
            raise InputError(_must_be(name))
        if value is not None:
            found[name] = value if isinstance(value, _OBJECTS.get(name, ())) else _read(name, value, name)
    return found


def _read(name: str, value: object, where: str) -> Any:  # noqa: ANN401 - each setting has a type of its own
    if name in SECRETS:
        msg = f"{where} is a secret: name a file that holds it with {name}_file"
        raise InputError(msg)
    if name not in SETTINGS:
        close = get_close_matches(name, SETTINGS, 1)
        advice = f": did you mean {close[0]}?" if close else f"; there are {', '.join(SETTINGS)}"
        msg = f"{where} is no setting{advice}"
        raise InputError(msg)
    convert, wanted = SETTINGS[name]
    try:
        return convert(value)
    except (KeyError, TypeError, ValueError):
        msg = f"{where} must be {wanted}"
        raise InputError(msg) from None


def _merge(levels: list[dict[str, Any]]) -> dict[str, Any]:
    """Each setting from the first level that has it; a whole object there hides its parts further down."""
    merged: dict[str, Any] = {}
    for level in levels:
        for name, value in level.items():
            parts = [part for part in level if part != name and _whole_of(part) == name]
            if parts and value is not True:
                msg = f"{name} and {parts[0]} are given twice: leave one of them out"
                raise InputError(msg)
        hidden = {
            _whole_of(name) for name, value in merged.items() if value is not True and name in {*_OBJECTS, *_FILES}
        }
        level_has_less = {
            name for name, value in level.items() if value is False and name in {_whole_of(part) for part in merged}
        }
        merged |= {
            name: value
            for name, value in level.items()
            if name not in merged and name not in level_has_less and _whole_of(name) not in hidden
        }
    return merged


def _whole_of(name: str) -> str:
    """The object that a setting is a part of: ``tls`` of ``tls_ca``."""
    return next((whole for whole in _OBJECTS if name == whole or name.startswith(f"{whole}_")), name)


def _arguments(merged: dict[str, Any]) -> dict[str, Any]:
    """Make objects of their parts."""
    arguments = {name: value for name, value in merged.items() if _whole_of(name) not in _OBJECTS}
    for name in SECRETS:
        if f"{name}_file" in merged:
            arguments[name] = Secret.from_file(merged[f"{name}_file"])
    parts = {field: merged[name] for name, field in _RETRY.items() if name in merged}
    if parts:
        arguments["retry"] = RetryPolicy(**parts)
    certificates = [merged.get(name) for name in ("tls_ca", "tls_key", "tls_cert")]
    if merged.get("tls") is True or any(certificates):
        arguments["tls"] = TLS.from_files(*certificates)
    if any(name in merged for name in _AUDIT):
        arguments["audit"] = _audit(merged)
    arguments |= {name: merged[name] for name, kind in _OBJECTS.items() if isinstance(merged.get(name), kind)}
    if "endpoints" not in arguments:
        msg = (
            f"name the server: its host:port, or the variable {_PREFIX}ENDPOINTS, or endpoints in a configuration file"
        )
        raise InputError(msg)
    return arguments


def _audit(merged: dict[str, Any]) -> AuditLog:
    missing = [name for name in _AUDIT if name not in merged]
    if missing:
        msg = f"the audit log needs {', '.join(_AUDIT)}: {' and '.join(missing)} not given"
        raise InputError(msg)
    key = content_of(merged["audit_key_file"])  # every byte: random ones may look like white space
    return AuditLog(merged["audit_file"], site_key=key, actor=merged["audit_actor"])
