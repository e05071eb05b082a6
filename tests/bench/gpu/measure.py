"""Start of the GPU benchmark, ``python tests/bench/gpu/measure.py --device cuda``; radserve need not be installed."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(root / part) for part in ("tests", "client", "deploy")]

    from bench.gpu.run import main

    sys.exit(main())
