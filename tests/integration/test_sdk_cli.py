"""The command line, as a script would call it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.classifiers import image_contract, text_contract, write_classifier
from support.commands import RADSERVE
from support.datasets import TEST_FILES
from support.repositories import write_add_one, write_config, write_public, write_python

from radserve.cli import main
from radserve.cli._show import Tally
from radserve.journal import Journal
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., "Done"]

CT, MR, CUT = (str(TEST_FILES / name) for name in ("CT_small.dcm", "MR_small.dcm", "MR_truncated.dcm"))
SLOW = """
import os
import time
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        self.busy = os.path.join(args["model_repository"], "busy")
    def execute(self, requests):
        open(self.busy, "w").close()
        time.sleep(1.5)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", r.inputs()[0].as_numpy())]) for r in requests]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_classifier(repository, text_contract())
    write_add_one(repository)
    write_unbatched(repository)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def write_unbatched(repository: Path) -> None:
    """A model of two axes, one of them free, and no batch axis."""
    inputs, outputs = (("X", "FP32", (-1, 3)),), (("Y", "FP32", (-1, 3)),)
    write_config(repository / "raw_step", inputs, outputs, backend="python", max_batch_size=0)
    (repository / "raw_step" / "1").mkdir()
    (repository / "raw_step" / "1" / "model.py").write_text(SLOW.replace("time.sleep(1.5)", ""))
    write_public(repository, "raw", "raw_step", inputs, outputs, max_batch_size=0)


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def radserve(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the command in this process, which spares the imports."""

    def run(*arguments: str, given: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return run


def test_each_input_gets_a_line_of_json_and_one_failure_makes_the_exit_status(
    server: EmbeddedServer, radserve: Run
) -> None:
    done = radserve("predict", "brightness", CT, MR, CUT, CT, "--url", server.grpc_url, "--json", "--priority", "stat")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["input"] for line in lines] == [CT, MR, CUT, CT]
    assert [line["error"]["type"] for line in lines[1:3]] == ["OutOfScopeError", "DecodeError"]
    assert lines[1]["error"]["message"]
    assert (lines[0]["model"], lines[0]["version"]) == ("brightness", 1)
    assert lines[0]["findings"][0] == {
        "label": "dark",
        "probability": lines[0]["findings"][0]["probability"],
        "threshold": 0.5,
        "is_positive": True,
        "is_indeterminate": False,
        "indeterminate": None,
        "code": {"value": "DARK", "scheme": "99TEST", "meaning": "dark"},
    }


def test_all_answered_is_exit_status_0_and_the_table_shows_the_intended_use(
    server: EmbeddedServer, radserve: Run
) -> None:
    done = radserve("predict", "brightness", CT, "--url", server.grpc_url)
    assert done.returncode == 0
    for shown in ("dark", "present", "DARK", "For tests only"):
        assert shown in done.stdout


def test_columns_that_no_input_fills_are_left_out(server: EmbeddedServer, radserve: Run) -> None:
    shown = radserve("predict", "brightness", MR, "--url", server.grpc_url).stdout
    header, *_ = (line for line in shown.splitlines() if "input" in line)
    assert [cell.strip() for cell in header.strip("┃ ").split("┃")] == ["input", "answer"]


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_model_of_tensors_is_refused_once(server: EmbeddedServer, radserve: Run, more: tuple[str, ...]) -> None:
    done = radserve("predict", "add_one", CT, MR, CT, "--url", server.grpc_url, *more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "add_one takes tensors as they are: call infer()" in done.stderr


def test_a_refused_input_stands_in_the_table_with_its_error(server: EmbeddedServer, radserve: Run) -> None:
    done = radserve("predict", "brightness", CT, MR, "--url", server.grpc_url)
    assert done.returncode == 1
    assert "OutOfScopeError: Modality" in done.stdout


def test_label_maps_are_not_asked_of_a_classifier(server: EmbeddedServer, radserve: Run, tmp_path: Path) -> None:
    done = radserve("predict", "brightness", CT, "--url", server.grpc_url, "--output", str(tmp_path / "maps"))
    assert done.returncode == 1
    assert "brightness gives no label maps: leave --output out" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_a_folder_gives_all_its_files_in_order_but_hidden_ones_and_tables(
    server: EmbeddedServer, tmp_path: Path, radserve: Run
) -> None:
    for name in ("b/2.dcm", "a.dcm", "b/1.dcm", ".hidden", "labels.csv", "b/DICOMDIR"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(Path(CT).read_bytes())
    done = radserve("predict", "brightness", str(tmp_path), "--url", server.grpc_url, "--json")
    assert done.returncode == 0
    names = [Path(json.loads(line)["input"]).relative_to(tmp_path).as_posix() for line in done.stdout.splitlines()]
    assert names == ["a.dcm", "b/1.dcm", "b/2.dcm"]
    assert done.stderr == "radserve: passed over in folders: 1 .csv, 1 DICOMDIR, 1 hidden\n"


def test_a_folder_of_reports_gives_its_text_files(server: EmbeddedServer, tmp_path: Path, radserve: Run) -> None:
    for name in ("1.txt", "labels.csv"):
        (tmp_path / name).write_text("calm")
    done = radserve("predict", "triage", str(tmp_path), "--url", server.grpc_url, "--json")
    assert [Path(json.loads(line)["input"]).name for line in done.stdout.splitlines()] == ["1.txt"]
    assert done.stderr == "radserve: passed over in folders: 1 not .txt\n"


def test_an_empty_folder_is_an_error_and_the_others_are_answered(
    server: EmbeddedServer, tmp_path: Path, radserve: Run
) -> None:
    done = radserve("predict", "brightness", str(tmp_path), CT, "--url", server.grpc_url, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [("findings" in line, "error" in line) for line in lines] == [(True, False), (False, True)]
    assert done.returncode == 1


def test_a_file_is_read_from_standard_input(server: EmbeddedServer, radserve: Run) -> None:
    done = radserve("predict", "brightness", "-", "--url", server.grpc_url, "--json", given=Path(CT).read_bytes())
    assert done.returncode == 0
    assert json.loads(done.stdout)["input"] == "-"


def test_reports_come_from_files_from_standard_input_and_as_text(
    server: EmbeddedServer, tmp_path: Path, radserve: Run
) -> None:
    (tmp_path / "good.txt").write_text("urgent 气胸", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    inputs = [str(tmp_path / "good.txt"), str(tmp_path / "bad.txt"), str(tmp_path / "none.txt"), "-"]
    done = radserve(
        *("predict", "triage", *inputs, "--text", "urgent: 未见", "--url", server.grpc_url, "--json"), given=b"calm"
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("error", {}).get("type") for line in lines] == [None, "InputError", "InputError", None, None]
    assert [line["findings"][0]["is_positive"] for line in lines if "findings" in line] == [True, False, True]
    assert done.returncode == 1


def test_answers_go_to_a_file_and_the_next_run_adds_the_rest(
    server: EmbeddedServer, tmp_path: Path, radserve: Run
) -> None:
    out = tmp_path / "results.jsonl"
    command = ["predict", "brightness", "--url", server.grpc_url, "--out", str(out)]
    assert radserve(*command, CT, CT).stdout == f"{out}: 1 answered, 0 refused\n"
    again = radserve(*command, CT, MR)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "is there already: resume what it holds (--resume)" in again.stderr
    done = radserve(*command, CT, MR, "/nowhere/x.dcm", "--resume")
    assert done.returncode == 1
    assert done.stdout == f"{out}: 1 answered, 1 refused, 1 left: run again with --resume\n"
    assert done.stderr.startswith("radserve: /nowhere/x.dcm: InputError: ")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["input"] for line in lines] == [CT, MR]
    assert (lines[0]["version"], lines[1]["error"]["type"]) == (1, "OutOfScopeError")


def test_reports_go_to_a_file_each_once(server: EmbeddedServer, tmp_path: Path, radserve: Run) -> None:
    out = tmp_path / "results.jsonl"
    (tmp_path / "a.txt").write_text("urgent")
    command = ["predict", "triage", "-", str(tmp_path), "--text", "urgent", "--text", "calm", "--url", server.grpc_url]
    for _ in range(2):
        done = radserve(*command, "--out", str(out), "--resume", given=b"calm too")
        assert done.returncode == 0
    names = [json.loads(line)["input"] for line in out.read_text().splitlines()]
    assert names == ["-", str(tmp_path / "a.txt"), "text 1", "text 2"]


def test_what_could_not_be_audited_is_asked_again(
    server: EmbeddedServer, tmp_path: Path, radserve: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, key = tmp_path / "results.jsonl", tmp_path / "key"
    key.write_bytes(bytes(32))
    texts = [word for number in range(100) for word in ("--text", f"urgent {number}")]
    command = ["predict", "triage", *texts, "--out", str(out), "--resume", "--url", server.grpc_url]
    monkeypatch.setenv("RADSERVE_AUDIT_KEY_FILE", str(key))
    monkeypatch.setenv("RADSERVE_AUDIT_ACTOR", "PACS")
    monkeypatch.setenv("RADSERVE_AUDIT_FILE", "/dev/full")
    done = radserve(*command)
    assert (done.returncode, done.stdout) == (
        1,
        f"{out}: 0 answered, 0 refused, 100 left: run again with --resume\n",
    )
    assert 16 <= done.stderr.count("nothing is answered without it") < 60, "it does not ask about all the rest"
    monkeypatch.setenv("RADSERVE_AUDIT_FILE", str(tmp_path / "audit.jsonl"))
    done = radserve(*command)
    assert (done.returncode, done.stdout) == (0, f"{out}: 100 answered, 0 refused\n")
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 100


def test_a_server_that_is_gone_ends_the_run_and_the_next_goes_on(tmp_path: Path, radserve: Run) -> None:
    write_classifier(tmp_path / "repository", text_contract())
    out = tmp_path / "results.jsonl"
    texts = [word for number in range(100) for word in ("--text", f"urgent {number}")]
    with EmbeddedServer(tmp_path / "repository", verify=False, supervise=False) as server:
        command = ["predict", "triage", *texts, "--out", str(out), "--resume", "--timeout", "5", "--url"]
        journaled = Journal.write

        def stop_after_ten(journal: Journal, *given: Any, **more: Any) -> bool:
            if len(journal) == 10:
                server.stop()
            return journaled(journal, *given, **more)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Journal, "write", stop_after_ten)
            done = radserve(*command, server.grpc_url)
    assert done.returncode == 1
    assert " left: run again with --resume" in done.stdout
    assert 16 <= done.stderr.count("\n") < 60, "it does not ask a server that is gone about all the rest"
    with EmbeddedServer(tmp_path / "repository", verify=False, supervise=False) as server:
        done = radserve(*command, server.grpc_url)
    assert (done.returncode, done.stdout) == (0, f"{out}: 100 answered, 0 refused\n")
    assert len(out.read_text().splitlines()) == 100


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_server_that_is_gone_is_not_asked_about_all_the_rest(
    tmp_path: Path, radserve: Run, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    write_classifier(tmp_path / "repository", text_contract())
    texts = [word for number in range(100) for word in ("--text", f"urgent {number}")]
    with EmbeddedServer(tmp_path / "repository", verify=False, supervise=False) as server:
        count = Tally.count

        def stop_after_ten(tally: Tally, answers: Iterator[Any]) -> Iterator[Any]:
            for number, answered in enumerate(count(tally, answers)):
                if number == 10:
                    server.stop()
                yield answered

        monkeypatch.setattr(Tally, "count", stop_after_ten)
        more = ["--json"] if form == "json" else []
        done = radserve("predict", "triage", *texts, "--timeout", "5", "--url", server.grpc_url, *more)
    assert done.returncode == 1
    *_, summary, why = done.stderr.splitlines()
    found = re.fullmatch(r"radserve: (\d+) answered, 0 refused, (\d+) failed, (\d+) left", summary)
    assert found, done.stderr
    answered, failed, left = map(int, found.groups())
    assert answered >= 10
    assert 15 <= failed < 60
    assert answered + failed + left == 100
    assert why.startswith("radserve: ")
    assert done.stdout.count("Error: " if form == "table" else '"error"') == failed


@pytest.mark.parametrize("arguments", [("--resume",), ("--out", "results.jsonl", "--json")])
def test_options_that_make_no_sense_together_are_wrong_usage(radserve: Run, arguments: tuple[str, ...]) -> None:
    done = radserve("predict", "m", CT, "--url", "127.0.0.1:9", *arguments)
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_text_for_a_model_of_images_is_refused(server: EmbeddedServer, radserve: Run) -> None:
    done = radserve("predict", "brightness", "--text", "x", "--url", server.grpc_url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_models_are_listed(server: EmbeddedServer, radserve: Run) -> None:
    plain = [json.loads(line) for line in radserve("models", "--url", server.grpc_url, "--json").stdout.splitlines()]
    accepted = ["X FP32 [batch, 4]", "CT", "X FP32 [any, 3]", "text: en, zh"]
    assert [(line["model"], line["accepts"]) for line in plain] == list(
        zip(["add_one", "brightness", "raw", "triage"], accepted, strict=True)
    )
    told = [[(tensor["name"], tensor["shape"]) for tensor in line["inputs"]] for line in plain]
    assert told[:3] == [[("X", ["batch", 4])], [("PIXELS", ["batch", 8, 8, 1])], [("X", ["any", 3])]]
    assert [line["max_batch_size"] for line in plain] == [8, 8, 0, 8]
    assert plain[0]["outputs"] == [{"name": "Y", "datatype": "FP32", "shape": ["batch", 4]}]
    assert [(line["study"], line["evidence"]) for line in plain] == [(False, False)] * 4
    assert plain[1]["contract_sha256"] == image_contract().sha256
    shown = radserve("models", "--url", server.grpc_url).stdout
    assert "brightness" in shown
    assert "X FP32 [batch, 4]" in shown
    assert re.search(r"\bCT \(one file\)", shown)


def test_the_list_says_which_models_explain_themselves(reference_server: EmbeddedServer, radserve: Run) -> None:
    listed = radserve("models", "--url", reference_server.grpc_url, "--json").stdout.splitlines()
    assert [line["model"] for line in map(json.loads, listed) if line["evidence"]] == ["chest_xray_evidence"]
    shown = radserve("models", "--url", reference_server.grpc_url).stdout
    assert shown.count("evidence") == 1 + shown.count("chest_xray_evidence") == 3


def test_health_is_the_exit_status(server: EmbeddedServer, radserve: Run) -> None:
    assert radserve("health", "--url", server.grpc_url).returncode == 0
    done = radserve("health", "nope", "--url", server.grpc_url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nope" in done.stderr


@pytest.mark.parametrize("command", ["models", "health"])
def test_the_environment_says_what_no_option_says(
    server: EmbeddedServer, radserve: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RADSERVE_ENDPOINTS", server.grpc_url)
    assert radserve(command).returncode == 0
    monkeypatch.setenv("RADSERVE_TIMEOUT_S", "1e-6")
    assert "the 1e-06 s allowed are over: allow more with timeout_s (--timeout)" in radserve(command).stderr
    assert radserve(command, "--timeout", "20").returncode == 0


@pytest.mark.parametrize("command", [("predict", "chest_xray", CT), ("models",), ("health",)])
def test_no_server_is_one_line_and_exit_status_1(command: tuple[str, ...], radserve: Run) -> None:
    done = radserve(*command, "--url", "127.0.0.1:9", "--timeout", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("radserve: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nope",),
        ("predict",),
        ("predict", "m", CT),
        ("predict", "m", "--url", "127.0.0.1:9"),
        ("predict", "m", CT, "--url", "127.0.0.1:9", "--priority", "now"),
        ("predict", "m", CT, "--url", "127.0.0.1:9", "--timeout", "0"),
        ("health", "--nope"),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments: tuple[str, ...], radserve: Run) -> None:
    assert radserve(*arguments).returncode == 2


def test_ctrl_c_is_one_line_and_exit_status_130(tmp_path: Path) -> None:
    write_python(tmp_path, "slow", SLOW)
    busy = tmp_path / "slow_step" / "busy"
    with EmbeddedServer(tmp_path, verify=False, supervise=False) as server:
        busy.unlink()
        command = [*RADSERVE, "health", "slow", "--url", server.grpc_url]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - ourselves
        while not busy.exists():
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=20)
    assert running.returncode == 130
    assert told.decode() == "radserve: interrupted\n"
