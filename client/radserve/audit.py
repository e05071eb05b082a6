"""A log of who asked which model version about what, for hospitals that must keep one."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import InputError, RadserveError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHORTEST_KEY = 32
_LOCKED_S = 2.0  # a line is written in milliseconds: who holds the lock for longer, as a backup, hangs
_PAUSE_S = 0.01


class AuditLog:
    """Appends one JSON line for each question, before its answer is given to the caller.

    Of the input it holds keyed hashes of the SOP Instance UIDs, HMAC-SHA256 (RFC
    2104): whoever has the key can find an image's entries, nobody else can try
    out the UIDs of a PACS. Safe to be shared by threads and processes.

    Args:
        path: The file; made if it is not there, readable by its owner alone.
        site_key: At least 32 random bytes, the hospital's secret.
        actor: Who asks, as the hospital names its systems or users.

    Raises:
        InputError: The key is too short, or the actor is no plain name.
    """

    def __init__(self, path: str | Path, *, site_key: bytes, actor: str) -> None:
        if len(site_key) < _SHORTEST_KEY:
            msg = f"the audit log's site key must have {_SHORTEST_KEY} random bytes or more: openssl rand 32 makes them"
            raise InputError(msg)
        if not actor or not actor.isprintable():
            msg = "the audit log's actor must be a name in printable characters: who asks, as the hospital names it"
            raise InputError(msg)
        self._path, self._key, self._actor = Path(path), site_key, actor

    def __repr__(self) -> str:
        return f"<AuditLog {self._path}>"

    def hashed(self, sop_instance_uid: str) -> str:
        """What the log holds in the place of a SOP Instance UID."""
        return hmac.new(self._key, sop_instance_uid.encode(), hashlib.sha256).hexdigest()

    def record(
        self,
        action: str,
        *,
        model: str,
        version: int,
        contract_sha256: str,
        request_id: str,
        sop_instance_uids: Sequence[str],
        outcome: str,
    ) -> None:
        """Append an entry, and wait until it is on the disk.

        Args:
            action: What was asked, for example ``"predict"``.
            model: The public model's name.
            version: Its version.
            contract_sha256: Hash of its contract.
            request_id: The id in the server's log.
            sop_instance_uids: Of the input, as far as they are known.
            outcome: ``"answered"``, the type of the error, or ``"interrupted"`` where the caller gave
                up, for example by cancelling; the server may have answered.

        Raises:
            RadserveError: It cannot be written, or is locked for more than 2 s: the answer must not be used.
        """
        entry = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "actor": self._actor,
            "action": action,
            "model": model,
            "version": version,
            "contract_sha256": contract_sha256,
            "request_id": request_id,
            "inputs": [self.hashed(uid) for uid in sop_instance_uids],
            "outcome": outcome,
        }
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                reason = _append(file, line)
            finally:
                os.close(file)
        except OSError as error:
            reason = error.strerror
        if reason is None:
            return
        msg = f"the audit log {self._path} cannot be written ({reason}), and nothing is answered without it"
        raise RadserveError(msg)


def _append(file: int, line: bytes) -> str | None:
    """Write a line whole or not at all; returns why it could not be."""
    if not _is_locked(file):
        return f"another process has locked it for {_LOCKED_S:g} s"
    end = os.fstat(file).st_size
    written = os.write(file, line)
    if written < len(line):
        os.ftruncate(file, end)
        return "the disk is full"
    fcntl.flock(file, fcntl.LOCK_UN)  # others need not wait for the disk
    os.fsync(file)
    return None


def _is_locked(file: int) -> bool:
    """Whether this process alone may write now; closing the file lets go."""
    end = time.monotonic() + _LOCKED_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE_S)
