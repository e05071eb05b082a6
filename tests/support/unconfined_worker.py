"""The real child on a system that confines nothing: ``python -m support.unconfined_worker SETTINGS``."""

from __future__ import annotations

from radserve_export.from_keras import worker


def _refused(**_settings: object) -> None:
    raise OSError


if __name__ == "__main__":
    vars(worker)["confine"] = _refused
    worker.main()
