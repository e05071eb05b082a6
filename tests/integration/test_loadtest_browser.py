"""A load test's report in a real browser: it loads, draws its pictures, runs and fetches nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.loads import HOSTILE, errors, report_of, run_of

from radserve.loadtest import Ending, dump_html

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LIMIT_S = 120
WIDTH, HEIGHT = 1000, 3000


def browse(page: Path, *options: str) -> str:
    """What headless Chromium prints when it has loaded a page."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    with subprocess.Popen(  # noqa: S603 - the path that was found
        [
            browser,
            # Containers have no user namespaces for its sandbox, and the page is this test's own.
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={page.parent / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"),
            *(*options, page.as_uri()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    return out


@pytest.fixture
def page(tmp_path: Path) -> Path:
    run = run_of(ending=Ending.INTERRUPTED, errors=errors(HOSTILE))
    path = tmp_path / "report.html"
    path.write_text(dump_html(report_of([run], model=HOSTILE)), encoding="utf-8")
    return path


def pixels(page: Path, *options: str) -> NDArray[np.int16]:
    shot = page.with_name("shot.png")
    browse(page, f"--screenshot={shot}", *options)
    with Image.open(shot) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def share_of(picture: NDArray[np.int16], colour: str) -> float:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return float((np.abs(picture - wanted).max(axis=-1) <= 2).mean())


def test_the_page_holds_its_pictures_and_hostile_names_as_text(page: Path) -> None:
    dom = browse(page, "--dump-dom")
    assert len(re.findall(r"<svg [^>]*role=\"img\"", dom)) == 4
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in dom
    assert "<script" not in dom


@pytest.mark.parametrize(
    ("options", "background", "series"),
    [
        pytest.param((), "#ffffff", ("#2166ac", "#c9570c", "#2c7d46", "#80489c"), id="light"),
        pytest.param(
            ("--blink-settings=preferredColorScheme=0",),
            "#14171b",
            ("#6aaef2", "#f09a57", "#6cc287", "#cb9ae0"),
            id="dark",
        ),
    ],
)
def test_the_pictures_are_drawn_in_the_colours_of_the_scheme(
    page: Path, options: tuple[str, ...], background: str, series: tuple[str, ...]
) -> None:
    picture = pixels(page, *options)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert share_of(picture, background) > 0.5
    for colour in series:
        assert share_of(picture, colour) > 0.0002, f"nothing is drawn in {colour}"
    if background != "#ffffff":
        assert share_of(picture, "#ffffff") < 0.01


def test_the_page_fits_a_telephone_without_scrolling_sideways(page: Path) -> None:
    probe = page.with_name("narrow.html")
    text = page.read_text(encoding="utf-8").replace(
        "default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'"
    )
    script = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script>"
    probe.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    dom = browse(probe, "--dump-dom", "--window-size=500,900")
    found = re.search(r"<title>width (\d+)</title>", dom)
    assert found is not None
    assert int(found[1]) <= 500
