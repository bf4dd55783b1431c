"""The two kinds of failure that a user can mend, each with its exit code."""

from __future__ import annotations


class LTError(Exception):
    """Missing or bad files and data, or a failure while running: one or two plain sentences, exit code 1."""

    exit_code = 1


class UsageError(LTError):
    """An unknown verb, key or choice, a wrong type, conflicting keys, an unsupported task or model: exit code 2."""

    exit_code = 2
