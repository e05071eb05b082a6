"""When inputs are read in other processes, and when in threads."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pydicom
import pytest
from support.datasets import TEST_FILES
from support.sdk_contracts import IMAGE, TEXT, contract

from radserve._codec import Prepare
from radserve._workers import Preparing, _preparing

pytestmark = pytest.mark.usefixtures("no_child_left")

CT, MR, ECG = (TEST_FILES / name for name in ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm"))


def step(source: Any = CT, described: Any = IMAGE, **more: Any) -> Prepare:
    return Prepare(contract=contract(described), source=source, **more)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes pay from the first input on, whatever it takes."""
    monkeypatch.setattr(_preparing, "START_S", 0)
    monkeypatch.setattr(_preparing, "LEAST_S", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def ran(preparing: Preparing, *steps: Prepare) -> bool:
    """Whether there are worker processes after some steps."""
    try:
        for one in steps:
            preparing(one)
        return preparing.uses_processes
    finally:
        preparing.close()


@pytest.mark.usefixtures("at_once")
def test_processes_are_used_from_when_they_pay() -> None:
    assert not ran(Preparing(2, processes=None), step())
    assert ran(Preparing(2, processes=None), step(), step(), step())


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"processes": False}, False),
        ({"processes": True}, True),
        ({"processes": None}, False),
    ],
)
def test_who_wants_processes_has_them_at_once(given: dict[str, Any], used: bool) -> None:  # noqa: FBT001 - a parameter
    assert ran(Preparing(2, **given), step(), step()) == used


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "asked", [step(pydicom.dcmread(CT)), step("no finding", TEXT), step(np.zeros((4, 4), np.float32) + np.eye(4))]
)
def test_what_is_costly_to_hand_over_stays_here(asked: Prepare) -> None:
    assert not ran(Preparing(2, processes=True), asked, asked)


@pytest.mark.usefixtures("at_once")
def test_one_processor_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert not ran(Preparing(2, processes=None), step(), step())


def test_where_no_process_can_be_started_threads_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: "/nowhere/python")
    preparing = Preparing(2, processes=True)
    assert preparing(step()).inputs.keys() == {"PIXELS"}
    preparing.close()
