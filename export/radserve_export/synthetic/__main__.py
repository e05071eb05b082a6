"""Write generated samples to files, for trying things out.

Example: ``python -m radserve_export.synthetic chest_xray --count 5 --output samples``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from radserve_export.synthetic import GENERATORS, Split, generate


def main() -> None:
    """Write ``NAME_NNN.dcm`` or ``.txt`` files and a ``labels.csv`` beside them."""
    parser = argparse.ArgumentParser(prog="python -m radserve_export.synthetic", description=__doc__)
    parser.add_argument("generator", choices=GENERATORS)
    parser.add_argument("--count", type=int, default=5, help="how many samples (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--output", type=Path, default=Path("samples"), help="folder to write (default samples)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    lines = ["file,label"]
    for index, sample in enumerate(generate(args.generator, args.count, seed=args.seed, split=Split.TEST)):
        text = isinstance(sample.source, str)
        path = args.output / f"{args.generator}_{index:03d}{'.txt' if text else '.dcm'}"
        path.write_bytes(sample.source.encode() if isinstance(sample.source, str) else sample.source)
        lines.append(f"{path.name},{sample.label}")
    (args.output / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {args.count} files and labels.csv to {args.output}")  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
