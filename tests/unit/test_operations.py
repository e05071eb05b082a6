"""Every command of the guides for operators is one that its tool understands, about things that there are."""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import typer
from support.deployment import DEPLOY, ROOT, compose, kubectl, objects, rendered, run

from radserve.audit import AuditLog
from radserve.cli import main

if TYPE_CHECKING:
    from pathlib import Path

_GUIDES = ("README.md", "OPERATIONS.md", "ALERTS.md")
_PAGE = (DEPLOY / "OPERATIONS.md").read_text(encoding="utf-8")


def _commands(guide: str) -> list[str]:
    text = (DEPLOY / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for _, block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


_ALL = sorted({command for guide in _GUIDES for command in _commands(guide)})


def _of(tool: str) -> list[str]:
    return [command for command in _ALL if shlex.split(command)[0] == tool]


def test_every_command_is_looked_at() -> None:
    assert {shlex.split(command)[0] for command in _ALL} == {"radserve", "kubectl", "docker", "make", "mv"}


@pytest.mark.parametrize("command", _of("radserve"))
def test_radserve_understands_it(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    (point,) = [one for one in metadata.entry_points(group="radserve.commands") if one.name == name]
    app = typer.Typer()
    app.command(name)(point.load())
    typer.main.get_command(app).make_context(name, arguments)


@pytest.mark.parametrize("command", _of("kubectl"))
def test_kubectl_understands_it_and_what_it_names_is_there(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    names = {f"{kind.lower()}/{name}" for kind, name in objects(rendered("overlays/multi-gpu"))}
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    verbs = [word for word in words if re.fullmatch("[a-z]+", word) and word not in {"radserve", "events"}]
    known = run(kubectl(), *verbs, "--help").stdout + run(kubectl(), "options").stdout
    assert [option for option in options if not re.search(rf"{option}\b", known)] == []
    assert {word for word in words if re.match("(deployment|job)/", word)} <= names
    for option, path in pairwise(words):
        if option == "--kustomize":
            run(kubectl(), "kustomize", ROOT / path)
        if option == "--filename":
            assert (ROOT / path).is_file()
        if option == "--namespace":
            assert f"namespace/{path}" in names


@pytest.mark.parametrize("command", _of("docker"))
def test_what_a_docker_command_names_is_there(command: str) -> None:
    words = shlex.split(command, comments=True)
    files = [path for option, path in pairwise(words) if option == "--file"]
    assert all((ROOT / path).is_file() for path in files)
    if words[1] == "compose":
        profiles = {one for service in compose()["services"].values() for one in service.get("profiles", ())}
        after = words[words.index("up" if "up" in words else "restart") + 1 :]
        assert {word for word in after if not word.startswith("--")} <= compose()["services"].keys()
        assert {name for option, name in pairwise(words) if option == "--profile"} <= profiles
    arguments = re.findall(r"--build-arg (\w+)", command)
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert all(re.search(rf"^ARG {name}\b", dockerfile, re.MULTILINE) for name in arguments)


@pytest.mark.parametrize("command", _of("make"))
def test_a_make_target_is_there(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_example_of_sizing_gives_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    values: dict[str, Any] = {}
    exec(compile(block, "OPERATIONS.md", "exec"), values)  # noqa: S102 - the guide's own text
    assert f"# {capsys.readouterr().out.strip()}\n" in block
    lost = values["arrivals"] / (values["replicas"] - 1) / values["rate"]
    assert f"have {100 * lost:.0f} % of their highest rate" in _PAGE


def test_what_is_kept_is_as_long_as_it_says() -> None:
    services = compose()["services"]
    assert all(one["logging"]["options"] == {"max-size": "10m", "max-file": "5"} for one in services.values())
    assert "5 files of 10 MB" in _PAGE
    assert "--storage.tsdb.retention.time=30d" in services["prometheus"]["command"]
    assert "Compose: 30 days" in _PAGE


def test_an_audit_log_that_is_renamed_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = _of("mv")
    monkeypatch.chdir(tmp_path)
    log = AuditLog("audit.jsonl", site_key=bytes(32), actor="PACS")
    entry: dict[str, Any] = {
        "model": "m",
        "version": 1,
        "contract_sha256": "",
        "request_id": "r",
        "outcome": "answered",
    }
    for _ in range(2):
        log.record("predict", sop_instance_uids=["1.2"], **entry)
    run(*shlex.split(command))
    log.record("predict", sop_instance_uids=["1.2"], **entry)
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.iterdir())] == [2, 1]


def test_a_restored_release_is_compared_with_its_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert "radserve check --manifests model_repository" in _of("radserve")
    with pytest.raises(SystemExit) as ended:
        main(["check", "--manifests", str(ROOT / "model_repository")])
    assert not ended.value.code
    assert "models" in "".join(capsys.readouterr())


@pytest.mark.parametrize("guide", [*_GUIDES, "SECURITY.md"])
def test_every_link_leads_somewhere(guide: str) -> None:
    text = (DEPLOY / guide).read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if path.startswith("http"):
            continue
        target = DEPLOY / path if path else DEPLOY / guide
        assert target.exists(), path
        assert not anchor or anchor in _anchors(target), anchor


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_doctors_advice_names_what_is_there() -> None:
    sources = [(ROOT / "deploy/radserve_server" / name).read_text() for name in ("reach.py", "deployed.py")]
    assert all((ROOT / path).exists() for text in sources for path in re.findall(r"deploy/[\w./]+\w", text))
    assert all(f"## {name}" in _PAGE for text in sources for name in re.findall(r'OPERATIONS\.md, "(\w+)"', text))
