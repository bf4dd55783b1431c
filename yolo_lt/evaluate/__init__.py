"""Detections to numbers by frequency bin. numpy only: nothing here imports torch or ultralytics."""

from yolo_lt.evaluate.matching import Matches, match
from yolo_lt.evaluate.report import Report, evaluate, load_matches, save_matches

__all__ = ["Matches", "Report", "evaluate", "load_matches", "match", "save_matches"]
