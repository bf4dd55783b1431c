"""Annotations to statistics. numpy only: nothing here imports torch or ultralytics."""

from yolo_lt.dataset.bins import BIN_NAMES, Bins, frequency_bins
from yolo_lt.dataset.stats import ClassStats

__all__ = ["BIN_NAMES", "Bins", "ClassStats", "frequency_bins"]
