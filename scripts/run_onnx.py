"""Run an exported file with numpy, OpenCV and onnxruntime alone: python scripts/run_onnx.py best.onnx image.jpg.

The file comes from `yolo-lt export model=best.pt nms=true [thresholds=thresholds.yaml]`.
"""

import ast
import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
meta = session.get_modelmeta().custom_metadata_map
names, (height, width) = ast.literal_eval(meta["names"]), ast.literal_eval(meta["imgsz"])
thresholds = json.loads(meta.get("lt_thresholds", "null")) or [0.25] * len(names)  # one per class

image = cv2.imread(sys.argv[2])
h, w = image.shape[:2]
scale = min(height / h, width / w)
small = cv2.resize(image, (round(w * scale), round(h * scale)))
top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
padded = np.full((height, width, 3), 114, np.uint8)
padded[top : top + small.shape[0], left : left + small.shape[1]] = small
batch = padded[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255  # BGR to RGB, to (1, 3, H, W)

for row in session.run(None, {session.get_inputs()[0].name: batch})[0][0]:
    score, c = row[4], int(row[5])
    if score > thresholds[c]:  # rows that are not in use have score 0
        box = ((row[:4] - [left, top, left, top]) / scale).clip(0, [w, h, w, h])
        print(names[c], f"{score:.4f}", *(f"{v:.1f}" for v in box))
