"""The two kinds of failure that a user can mend, each with its exit code."""

from __future__ import annotations


class LTError(Exception):
    """Missing or bad files and data, or a failure while running: one or two plain sentences, exit code 1."""

    exit_code = 1


class UsageError(LTError):
    """An unknown verb, key or choice, a wrong type, conflicting keys, an unsupported task or model: exit code 2."""

    exit_code = 2


def check_number(name: str, value: float, low: float = 0.0, high: float = float("inf"), above: bool = False) -> float:
    """The number, if it is in [low, high), or in (low, high) with `above`; a NaN is not.

    Raises:
        UsageError: It is not.
    """
    if not low <= value < high or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        raise UsageError(f"{name}={value}: expected a number {bound}" + (f" to below {high:g}" if high < 1e300 else ""))
    return value
