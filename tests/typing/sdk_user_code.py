# pyright: strict
"""What a user of the SDK writes; ``mypy --strict`` and pyright must accept it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from radserve import (
    TLS,
    Classification,
    Client,
    Finding,
    GeneratedText,
    OutOfScopeError,
    Priority,
    Rejection,
    Segmentation,
)


def one(url: str) -> tuple[str, float]:
    with Client(url, tls=TLS.from_files("ca.pem"), timeout_s=5) as client:
        model = client.model("chest_xray")
        result = model.predict("IM0001.dcm", priority=Priority.STAT, frame=0, timeout_s=1.5)
        top: Finding = result.top
        return top.label, top.probability


def kinds(client: Client) -> list[Classification]:
    image, report = client.model("chest_xray", Classification), client.model("report_triage", Classification)
    return [
        image.predict(Path("IM0001.dcm")),
        image.predict(b"..."),
        image.predict(pydicom.dcmread("IM0001.dcm")),  # pyright: ignore[reportUnknownMemberType] - pydicom's own types
        image.predict(np.zeros((28, 28), dtype=np.float32)),
        report.predict("no evidence of pneumothorax"),
    ]


def other_tasks(client: Client) -> tuple[int, str]:
    lesions = client.model("ct_lesion", Segmentation).predict("IM0001.dcm")
    written = client.model("report_impression", GeneratedText).predict("Large left pneumothorax.")
    return int(lesions.label_map.max()) + sum(region.pixel_count for region in lesions.findings), written.text


def many(client: Client, folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for answer in client.model("chest_xray").predict_many(folder.iterdir()):
        if isinstance(answer, Rejection):
            if isinstance(answer.error, OutOfScopeError):
                continue
            raise answer.error
        for finding in answer.findings:
            if finding.is_positive:
                found[finding.code.value] = found.get(finding.code.value, 0) + 1
    return found


def arrays(client: Client) -> float:
    outputs = client.model("any").infer({"input": np.zeros((1, 4), dtype=np.float32)})
    return float(outputs["output"].sum())


def checks(client: Client) -> dict[str, float]:
    client.wait_until_ready(30)
    names: list[str] = [model.name for model in client.models()]
    return {name: client.health(name)[name] for name in names}
