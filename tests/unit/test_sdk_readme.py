"""What the README says of the SDK is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from radserve._transport._errors import retry_table
from radserve.options._load import SETTINGS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_codes_is_that_of_the_transport() -> None:
    assert f"\n\n{retry_table()}\n" in README


def test_each_option_is_named() -> None:
    told = re.search(r"^Each option is .*?else the default: (.*?)\. ", README, flags=re.MULTILINE | re.DOTALL)
    assert told
    assert re.split(r",\s+", told[1]) == list(SETTINGS)
