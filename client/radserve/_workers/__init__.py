"""Prepare inputs in other processes: faster where Python's one lock is the limit, and safe from what a file does."""

from radserve._workers._pool import StartError, Workers
from radserve._workers._preparing import Preparing

__all__ = ["Preparing", "StartError", "Workers"]
