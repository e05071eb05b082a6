"""What results show of themselves, in notebooks and terminals."""

from __future__ import annotations

import base64
import io
import json
import pickle
import pydoc
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support.answers import classification, drawn, finding, generated_text, provenance, segmentation

from radserve import EvidenceMap, ImageFindings, OutOfScopeError, Region, Rejection, ServerUnavailableError, reports
from radserve.contracts import Code
from radserve.errors import MissingAttributeError, MissingExtraError, Retry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve import RadserveError, Result

README = Path(__file__).parents[2] / "README.md"
_KEY = re.compile(r"`(\w+)`")
HOSTILE = "<script>alert('&\"')</script>[bold red]x[/]\x1b[2J"


class Page(HTMLParser):
    """Tags, text and pictures of a piece of HTML, as a browser takes them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.text = ""
        self.pictures: list[NDArray[np.uint8]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")
        if tag != "img":
            self.open.append(tag)
            return
        kind, _, data = str(dict(attrs)["src"]).partition(",")
        assert kind == "data:image/png;base64"
        self.pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


def printed(result: Result) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(result)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def shown(result: Result) -> Page:
    return Page(result._repr_html_())


def hostile_results() -> dict[str, Result]:
    changed: dict[str, Any] = {"model": HOSTILE}
    label_map = drawn(20, 30)
    region = Region(
        label=HOSTILE,
        value=1,
        is_positive=True,
        pixel_count=1,
        area_mm2=None,
        code=Code(value=HOSTILE, scheme="99T", meaning=HOSTILE),
    )
    evidence = EvidenceMap(label=HOSTILE, values=np.zeros((4, 4), np.float32))
    return {
        "classification": classification(findings=(finding(label=HOSTILE),), evidence=evidence, **changed),
        "segmentation": segmentation(label_map, findings=(region,), **changed),
        "text": generated_text(HOSTILE, **changed),
    }


@pytest.mark.parametrize("kind", ["classification", "segmentation", "text"])
def test_text_of_a_result_is_text_on_a_page_and_in_a_terminal(kind: str) -> None:
    result = hostile_results()[kind]
    page = shown(result)
    assert HOSTILE in page.text
    assert page.tags <= {
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "img",
        "p",
    }
    terminal = printed(result)
    assert "[bold red]x[/]" in terminal
    assert "\x1b" not in terminal


def test_a_page_shows_every_finding_and_what_the_model_is_for() -> None:
    banded = finding("normal", 0.45, is_indeterminate=True, indeterminate=(0.4, 0.6))
    page = shown(classification(findings=(finding(), banded)))
    assert page.cells == [
        *("pneumothorax", "0.938", "present", "0.5", "Pneumothorax (SCT 36118008)"),
        *("normal", "0.450", "undetermined", "0.5", "Normal (99RADSERVE NORMAL)"),
    ]
    assert "chest 3" in page.text
    assert "AI result, not reviewed. Tests only" in page.text


def test_the_label_map_is_a_picture_of_its_labels() -> None:
    label_map = drawn(40, 60)
    (picture,) = shown(segmentation(label_map)).pictures
    assert picture.shape == (40, 60, 3)
    colours = [{tuple(pixel) for pixel in picture[label_map == value].tolist()} for value in (0, 1, 2)]
    assert colours[0] == {(0, 0, 0)}
    assert [len(each) for each in colours] == [1, 1, 1]
    assert len(colours[0] | colours[1] | colours[2]) == 3


def test_of_a_stack_the_slice_that_shows_most_is_the_picture() -> None:
    stack = np.zeros((5, 40, 60), np.uint8)
    stack[3] = drawn(40, 60)
    page = shown(segmentation(stack))
    assert "image 4 of 5" in page.text
    np.testing.assert_array_equal(page.pictures[0].any(axis=-1), stack[3] > 0)


def test_a_region_says_its_area_or_of_a_stack_its_volume() -> None:
    label_map = drawn(80, 120)
    area, volume = segmentation(label_map), segmentation(label_map[np.newaxis])
    for answer, unit, size in (
        (area, "mm²", area.findings[0].area_mm2),
        (volume, "mm³", volume.findings[0].volume_mm3),
    ):
        assert unit in shown(answer).text
        assert shown(answer).cells[2] == f"{size:.0f}"
        assert f"{size:.0f} {unit}" in repr(answer)


def test_the_evidence_is_a_picture_brighter_with_its_values() -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    page = shown(classification(evidence=EvidenceMap(label="pneumothorax", values=values)))
    assert "evidence for pneumothorax" in page.text
    brightness = page.pictures[0].astype(int).sum(axis=-1).ravel()
    assert brightness[0] == 0
    assert (np.diff(brightness) > 0).all()


def test_large_pictures_are_shown_small() -> None:
    (picture,) = shown(segmentation(drawn(2048, 1000))).pictures
    assert max(picture.shape) <= 256


def test_a_text_that_was_cut_off_says_so() -> None:
    assert shown(generated_text(is_complete=False)).cells == ["No pneumothorax. [cut off]"]
    assert "[cut off]" in printed(generated_text(is_complete=False))
    assert "cut off" not in printed(generated_text())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (classification(), ("pneumothorax", "0.938", "present", "Tests only")),
        (segmentation(drawn(40, 60)), ("liver", "lesion", "Lesion (SCT 52988006)")),
        (generated_text("左侧气胸。"), ("左侧气胸。", "impression 1")),
    ],
    ids=["classification", "segmentation", "text"],
)
def test_a_terminal_shows_a_table(result: Result, words: tuple[str, ...]) -> None:
    terminal = printed(result)
    assert all(word in terminal for word in words)


def test_a_repr_is_one_short_line() -> None:
    for result in (classification(), segmentation(drawn(40, 60)), generated_text()):
        assert "\n" not in repr(result)
        assert len(repr(result)) < 200
        assert provenance().contract_sha256 not in repr(result)
    assert repr(finding("normal", 0.45, is_indeterminate=True)) == "<Finding normal: 0.450, indeterminate>"


def keys(told: Any) -> set[str]:
    if isinstance(told, list):
        return {key for one in told for key in keys(one)}
    return {key for name, value in told.items() for key in (name, *keys(value))} if isinstance(told, dict) else set()


def complete_results() -> dict[str, Result]:
    """Of each kind one that leaves nothing out."""
    images = (ImageFindings(sop_instance_uid="1.2", frame_number=1, findings=(finding(),)),)
    evidence = EvidenceMap(label="pneumothorax", values=np.ones((4, 4), np.float32), image=0)
    return {
        "classification": classification(images=images, evidence=evidence),
        "segmentation": segmentation(drawn(40, 60)),
        "text generation": generated_text("左侧气胸。"),
    }


@pytest.mark.parametrize("kind", complete_results())
def test_the_keys_of_json_are_those_that_the_readme_lists(kind: str) -> None:
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    documented = {key for told, where in rows if where.startswith((kind, "all results")) for key in _KEY.findall(told)}
    assert keys(complete_results()[kind].to_dict()) == documented


@pytest.mark.parametrize("kind", complete_results())
def test_json_reads_as_it_was_written_and_is_strict(kind: str) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    result = complete_results()[kind]
    assert json.loads(result.to_json(), parse_constant=refuse) == result.to_dict()
    assert "\n" not in result.to_json()


@pytest.mark.parametrize("kind", ["classification", "segmentation", "text"])
def test_json_says_nothing_of_pictures(kind: str) -> None:
    told = hostile_results()[kind].to_dict()
    assert not {"label_map", "values", "pictures"} & told.keys()


def test_a_finding_is_looked_up_by_its_label() -> None:
    result = classification(findings=(finding("opacity", 0.75), finding("normal", 0.25)))
    assert result["normal"] is result.findings[1]
    with pytest.raises(KeyError, match="no label 'pneumothorax': there are opacity, normal"):
        result["pneumothorax"]


@pytest.mark.parametrize(
    "error",
    [
        OutOfScopeError("outside"),
        MissingAttributeError("Rows", "it is absent"),
        ServerUnavailableError("gone", model="m", version=3, request_id="r", code="UNAVAILABLE", retry=Retry.ELSEWHERE),
        MissingExtraError("codecs", "JPEG"),
    ],
)
def test_a_rejection_travels_between_processes(error: RadserveError) -> None:
    given = pickle.loads(pickle.dumps(Rejection(index=3, error=error)))  # noqa: S301 - our own
    assert (given.index, type(given.error), str(given.error)) == (3, type(error), str(error))
    assert vars(given.error) == vars(error)


def test_help_on_reports_is_about_reports() -> None:
    told = pydoc.plain(pydoc.render_doc(reports))
    assert "to_dicom_sr" in told
    assert len(told.splitlines()) < 200
