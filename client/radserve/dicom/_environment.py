"""The environment of a process that reads files, which a file may take over."""

from __future__ import annotations

import os

ISOLATED = "RADSERVE_ISOLATED"  # set to 1 in the environment of a process that may die of a file
_KEPT = frozenset({"HOME", "LANG", "PATH", "TMPDIR", "TZ"})
# Of the loader, of C's and of numerical libraries.
_KEPT_BEGIN = ("GLIBC_", "LC_", "LD_", "MALLOC_", "NPY_", "OMP_", "OPENBLAS_")


def reader_environment() -> dict[str, str]:
    """What libraries need to be found and to work, and no secret, whoever's it is and whatever its name."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_BEGIN)}
    return {**kept, ISOLATED: "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
