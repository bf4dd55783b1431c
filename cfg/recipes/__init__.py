"""Named presets of yolo-lt keys."""
