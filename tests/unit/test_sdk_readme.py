"""What the README says of the SDK is what the code says."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

from radserve._transport._errors import retry_table
from radserve.options import ClientOptions, RetryPolicy
from radserve.options._load import _RETRY, SETTINGS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_codes_is_that_of_the_transport() -> None:
    assert f"\n\n{retry_table()}\n" in README


def options() -> dict[str, list[str]]:
    """Of each option in the README: what it is, its default and an example."""
    table = README[README.index("| option | what |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| `(.*?)` \|$", table, flags=re.MULTILINE)
    return {name: told for name, *told in rows}


def test_the_retries_told_are_the_defaults() -> None:
    policy = RetryPolicy()
    first, second = policy.first_backoff_s, 2 * policy.first_backoff_s
    told = f"at most {policy.attempts} times, with pauses of up to {first} s and {second} s:"
    assert told in " ".join(README.split())
    assert f"(pauses double, up to {policy.longest_backoff_s:g} s)" in " ".join(README.split())


def test_each_option_is_told_with_what_it_is() -> None:
    assert [(name, told[0]) for name, told in options().items()] == [
        (name, wanted) for name, (_, wanted) in SETTINGS.items()
    ]


def test_the_defaults_are_those_of_the_code() -> None:
    defaults = {field.name: field.default for field in fields(ClientOptions)}
    of_retry = {field.name: field.default for field in fields(RetryPolicy)}
    for name, (_, told, _) in options().items():
        default = of_retry[_RETRY[name]] if name in _RETRY else defaults.get(name)
        if name == "tls":
            assert (told, default) == ("no", None)
        elif default is None or default is MISSING:
            assert told == "", name
        else:
            assert SETTINGS[name][0](told) == default, name


def test_the_examples_are_taken() -> None:
    for name, (_, default, example) in options().items():
        read, _ = SETTINGS[name]
        assert read(example) != (read(default) if default else None), name
