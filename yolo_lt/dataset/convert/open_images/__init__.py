"""Open Images V4 to V7 and its Challenges: the CSV files, streamed."""

from yolo_lt.dataset.convert.open_images.classes import read_classes
from yolo_lt.dataset.convert.open_images.files import FOLDERS, class_file, find_files, hierarchy_file
from yolo_lt.dataset.convert.open_images.hierarchy import expand
from yolo_lt.dataset.convert.open_images.read import read_split

__all__ = ["FOLDERS", "class_file", "expand", "find_files", "hierarchy_file", "read_classes", "read_split"]
