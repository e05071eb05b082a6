"""Answer every file of a folder, the urgent ones first, and write what was found to a CSV file.

Usage: python worklist_folder.py HOST:PORT MODEL FOLDER ANSWERS.csv [URGENT_SUFFIX]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from radserve import Classification, Client, Priority, Rejection


def main(url: str, name: str, folder: str, answers: str, urgent: str = "_stat.dcm") -> None:
    """Answer the folder's files."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    first = [path for path in files if path.name.endswith(urgent)]
    then = [path for path in files if path not in first]
    with Client(url) as client, Path(answers).open("w", newline="", encoding="utf-8") as output:
        model = client.model(name, Classification)
        writer = csv.writer(output)
        writer.writerow(["file", "label", "probability", "decision", "error"])
        for paths, priority in ((first, Priority.STAT), (then, Priority.ROUTINE)):
            for path, result in zip(paths, model.predict_many(paths, priority=priority), strict=True):
                if isinstance(result, Rejection):
                    writer.writerow([path.name, "", "", "", f"{type(result.error).__name__}: {result.error}"])
                else:
                    top = result.top
                    decision = "positive" if top.is_positive else "negative"
                    writer.writerow([path.name, top.label, f"{top.probability:.3f}", decision, ""])


if __name__ == "__main__":
    main(*sys.argv[1:])
