"""Names of classes and runs come from others: what is shown of them moves no cursor and breaks no file."""

from __future__ import annotations

import re
from typing import Any

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: Any) -> str:
    """One line without what moves the cursor, colours a terminal or turns the direction of writing."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def markup(text: str) -> str:
    """Many lines without what neither XML nor UTF-8 can hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def number_of(count: int, one: str, many: str = "") -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
