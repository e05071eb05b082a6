"""Model files that ask for more than to be read, built by hand: none is ever loaded."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from radserve.errors import ConversionError, UntrustedModelError
from radserve_export.from_keras import archive
from radserve_export.from_keras.archive import check_archive
from radserve_export.from_keras.configuration import Custom

if TYPE_CHECKING:
    from pathlib import Path

Check = Callable[..., set[Custom]]
DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "dense", "units": 2, "activation": "relu"},
    "registered_name": None,
}


def _config(*layers: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": list(layers)},
        "registered_name": None,
    }


def _weights(fill: Any = None) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.ones(3, np.float32)
        if fill is not None:
            fill(file)
    return stream.getvalue()


def _archive(config: Any = None, weights: bytes | None = None, *extra: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("metadata.json", "{}")
        text = config if isinstance(config, str) else json.dumps(config or _config(DENSE))
        file.writestr("config.json", text)
        file.writestr("model.weights.h5", _weights() if weights is None else weights)
        for name, content in extra:
            file.writestr(name, content)
    return stream.getvalue()


def _layer(**changes: Any) -> bytes:
    return _archive(_config({**DENSE, **changes}))


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks an archive of these bytes: ``check(content, *custom_names)``."""

    def check_content(content: bytes, *custom: str) -> set[Custom]:
        path = tmp_path / "m.keras"
        path.write_bytes(content)
        return check_archive(path, frozenset(custom))

    return check_content


def test_a_plain_archive_passes(check: Check) -> None:
    assert check(_archive(None, None, ("assets/layers/vocabulary.txt", b"a\n"))) == set()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (_archive(None, None, ("../evil.py", b"")), "'../evil.py': it leaves the archive's folder"),
        (_archive(None, None, ("/etc/passwd", b"")), "'/etc/passwd': it leaves"),
        (_archive(None, None, ("assets\\..\\..\\evil.txt", b"")), "it leaves"),
        (_archive(None, None, (_link("assets/x.txt"), b"/etc/passwd")), "'assets/x.txt': it is a link"),
        (_archive(None, None, ("model.pkl", b"")), "'model.pkl': Keras writes no such member"),
        (_archive(None, None, ("assets/evil.so", b"")), "'assets/evil.so': Keras writes no such member"),
        (_layer(class_name="Lambda"), "layer 'dense' (Lambda): a Lambda layer holds Python code"),
        (_layer(config={"activation": {"class_name": "__lambda__", "config": {}}}), "__lambda__"),
        (_layer(class_name="TFSMLayer"), "layer 'dense' (TFSMLayer)"),
        (_layer(class_name="TorchModuleWrapper"), "unpickles"),
        (_layer(module="os", class_name="system"), "system of os: only Keras' own layers"),
        (_layer(module="subprocess", class_name="Popen"), "Popen of subprocess"),
        (_layer(module="keras.src.utils.file_utils", class_name="get_file"), "get_file of keras.src.utils"),
        (_layer(module="keras.utils", class_name="get_file"), "get_file of keras.utils"),
        (_layer(module="builtins", class_name="function", config="evil"), "evil of builtins"),
        (_layer(module=None, class_name="Evil", registered_name="my_package>Evil"), "my_package>Evil: only Keras' own"),
        (_layer(registered_name="my_package>Dense"), "Dense of keras.layers: only Keras' own"),
        (_layer(module="kerasx.layers"), "Dense of kerasx.layers"),
        (_layer(module=["os"]), "it is not a class"),
        (
            _layer(class_name="StringLookup", config={"name": "look", "vocabulary": "/etc/passwd"}),
            "layer 'look' (StringLookup): it reads its vocabulary from a file",
        ),
        (_archive("[" * 100_000), "config.json is not one that Keras writes"),
        (
            _archive(None, _weights(lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")))),
            "weights /x: it is a link",
        ),
        (_archive(None, _weights(lambda file: file.__setitem__("x", h5py.SoftLink("/layers")))), "it is a link"),
        (
            _archive(
                None,
                _weights(lambda file: file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])),
            ),
            "weights /x: it reads another file",
        ),
        (
            _archive(None, _weights(lambda file: file.create_dataset("x", (2**40,), "f4", chunks=(1024,)))),
            "weights /x: it is too large",
        ),
    ],
)
def test_what_could_do_more_than_be_read_is_refused_by_name(check: Check, content: bytes, named: str) -> None:
    with pytest.raises(UntrustedModelError) as caught:
        check(content)
    assert named in str(caught.value)
    assert str(caught.value).startswith("m.keras")


def test_a_member_that_is_there_twice_is_refused(check: Check) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = _archive(None, None, ("config.json", b"{}"))
    with pytest.raises(UntrustedModelError, match=r"'config\.json': it is there twice"):
        check(content)


def test_oversized_members_are_refused_before_they_are_inflated(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(UntrustedModelError, match="it is too large"):
        check(_archive())


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", _archive()[:-40], _archive(None, b"not HDF5"), b"\x89HDF\r\n\x1a\n" + b"\0" * 600],
)
def test_a_damaged_archive_says_how_to_get_a_good_one(check: Check, content: bytes) -> None:
    with pytest.raises(ConversionError, match=r"save the model again with model\.save"):
        check(content)
