"""What ``radserve check`` looks for; each finding says in which file, and on which line."""

from radserve_export.checks.model import Finding, Problem, ServedModel

__all__ = ["Finding", "Problem", "ServedModel"]
