"""yolo_lt: long-tail adaptation for Ultralytics YOLO.

The order of the package is the order of the data flow: `dataset` (annotations to class statistics), `balance`
(statistics to what training sees and learns from), `calibrate` (a trained network's scores to decisions), `evaluate`
(detections to AP by frequency bin), `report` (tables and plots), and `ultra`, the only room that touches Ultralytics.
Importing it loads neither torch nor ultralytics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["YOLOLT", "__version__"]

if TYPE_CHECKING:
    from yolo_lt.api import YOLOLT


def __getattr__(name: str) -> Any:
    """Load the API, and with it torch and ultralytics, only when it is asked for."""
    if name == "YOLOLT":
        from yolo_lt.api import YOLOLT

        return YOLOLT
    raise AttributeError(f"module 'yolo_lt' has no attribute {name!r}")
