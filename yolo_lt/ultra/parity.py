"""Does an exported ONNX file equal the checkpoint? Both run on the same images: onnxruntime and PyTorch."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import ASSETS

from yolo_lt.errors import LTError
from yolo_lt.ultra import labels
from yolo_lt.ultra.boxsets import Differences, Graph, compare

TOLERANCE = {"float32": (1e-4, 1e-4), "float16": (2e-2, 5e-3)}  # of scores; of boxes and the rest, see Graph.span
IMAGES = 4  # compared, evenly spaced over the folder or split


def find_images(where: Any, data: dict[str, Any] | None, trained_on: Any) -> list[Path]:
    """The images to compare on; none for `parity=false`.

    Args:
        where: The key `parity`: a path to an image or a folder of images, or whether to compare at all.
        data: Parsed data YAML, if `data=` was given; its validation split is taken.
        trained_on: The data YAML that the checkpoint remembers, used if it and its images are still there; else
            Ultralytics' own two pictures are taken.

    Raises:
        LTError: The path or the split holds no image.
    """
    if where is False:
        return []
    if where is not True:
        return _spaced(_listed(Path(where)), f"parity={where}")
    if data:
        return _spaced([p for x in _several(data["val"]) for p in _listed(Path(x))], f"{data['yaml_file']}, key 'val'")
    try:
        return find_images(True, labels.load_data(trained_on), None)
    except LTError:
        return sorted(ASSETS.glob("*.jpg"))


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _listed(path: Path) -> list[Path]:
    """Images of a folder and its subfolders, of a .txt that lists them, or the one image."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix[1:].lower() in IMG_FORMATS)
    if path.suffix == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        return [path.parent / x.strip() if x.startswith("./") else Path(x.strip()) for x in lines if x.strip()]
    return [path] if path.is_file() else []


def _spaced(images: list[Path], source: str) -> list[Path]:
    if not images:
        raise LTError(f"{source}: there is no image to compare the exported file on")
    return [images[i * len(images) // IMAGES] for i in range(IMAGES)] if len(images) > IMAGES else images


def graph_of(exporter: Any) -> Graph:
    """Read from Ultralytics' exporter, as its export starts, what it is going to write."""
    args, meta = exporter.args, exporter.metadata
    tolerance, span = TOLERANCE["float16" if args.quantize == 16 else "float32"]
    height, width = exporter.imgsz
    larger = (height + meta["stride"], width + 2 * meta["stride"])  # a smaller one may have too few anchors for top-k
    kind = "nms" if args.nms else "topk" if meta["end2end"] else "raw"
    return Graph(
        kind=kind,
        num_classes=len(meta["names"]),
        sizes=((height, width), larger) if args.dynamic else ((height, width),),
        batch=max(2, args.batch) if args.dynamic and kind != "nms" else args.batch,  # NMS is unrolled over the batch
        channels=meta["channels"],
        rotated=meta["task"] == "obb",
        conf=args.conf if kind == "nms" else 0.0,
        iou=args.iou,
        max_det=exporter.model.model[-1].max_det if kind == "topk" else args.max_det,
        agnostic=args.agnostic_nms,
        tolerance=tolerance,
        span=span,
    )


def check(file: Path, model: torch.nn.Module, graph: Graph, images: list[Path]) -> Differences:
    """Run the ONNX file and the checkpoint on the same images and compare what comes out, see `boxsets.compare`.

    Args:
        file: The exported file.
        model: Ultralytics' model as it was loaded.
        graph: What the export fixed.
        images: Image files.

    Raises:
        LTError: The file cannot be run, an image cannot be read, or the two differ by more than the tolerance.
    """
    session, net = _session(file), _reference(model, graph.kind)
    found = Differences()
    for size in graph.sizes:
        for start in range(0, len(images), graph.batch):
            chunk = images[start : start + graph.batch]
            batch = np.stack([_load(p, size, graph.channels) for p in chunk])
            batch = batch[np.arange(graph.batch) % len(chunk)]  # a static file takes no shorter batch
            exported, truth = _run_onnx(session, batch, graph.kind), _run_torch(net, batch, graph.kind)
            for i, image in enumerate(chunk):
                fault = compare([x[i] for x in exported], [x[i] for x in truth], graph, found)
                if fault or not found.within(graph, size):
                    allowed = f"{found.text()}; allowed are {graph.tolerance:g} and {graph.span * max(size):.2g} px"
                    rounding = _rounding_text(net, batch[i : i + 1], graph)
                    raise LTError(f"on {image.name} at {size[0]}x{size[1]}: {fault or allowed}{rounding}")
    return found


def _reference(model: torch.nn.Module, kind: str) -> Any:
    """The checkpoint in float32 on the CPU, not fused; an end-to-end head gives every anchor instead of the best."""
    net: Any = deepcopy(model).cpu().float().eval()
    head = net.model[-1]
    if bool(head.end2end) != (kind == "topk"):
        net.end2end = kind == "topk"
    head.xyxy, head.postprocess = kind == "nms", _everything
    return net


def _everything(predictions: torch.Tensor) -> torch.Tensor:
    """Stands for an end-to-end head's choice of its best rows."""
    return predictions


@torch.inference_mode()
def _run_torch(net: Any, batch: np.ndarray, kind: str) -> list[np.ndarray]:
    """Boxes before any selection (B, A, 4 + C + E), and mask prototypes if the task has them."""
    out = net(torch.from_numpy(batch))[0]
    boxes, *protos = out if isinstance(out, tuple) else (out,)
    return [(boxes if kind == "topk" else boxes.transpose(1, 2)).numpy(), *(p.numpy() for p in protos)]


def _rounding_text(net: Any, image: np.ndarray, graph: Graph) -> str:
    """Says so if the checkpoint itself is so ill-conditioned that float32 rounding moves its scores as much."""
    scores = slice(4, 4 + graph.num_classes)
    single = _run_torch(net, image, graph.kind)[0][..., scores]
    double = _run_torch(deepcopy(net).double(), image.astype(np.float64), graph.kind)[0][..., scores]
    moved = float(np.abs(single - double).max())
    return (
        f"; float32 rounding alone moves the checkpoint's scores by {moved:.1g}" if moved > graph.tolerance / 2 else ""
    )


def _session(file: Path) -> Any:
    import onnxruntime  # only here: trainings and reports do without it

    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as e:
        raise LTError(f"in onnxruntime, which cannot load it: {' '.join(str(e).split())}") from None


def _run_onnx(session: Any, batch: np.ndarray, kind: str) -> list[np.ndarray]:
    """The file's rows in float32, anchors before channels if raw, and mask prototypes if the task has them."""
    entry = session.get_inputs()[0]
    half = entry.type == "tensor(float16)"
    try:
        rows, *protos = session.run(None, {entry.name: batch.astype(np.float16) if half else batch})
    except Exception as e:
        shape = "x".join(map(str, batch.shape))
        raise LTError(f"in onnxruntime, which cannot run it on a {shape} batch: {' '.join(str(e).split())}") from None
    rows = rows.transpose(0, 2, 1) if kind == "raw" else rows
    return [x.astype(np.float32) for x in (rows, *protos)]


def _load(file: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """An image as both networks take it: letterboxed to (height, width), RGB, 0 to 1, (channels, H, W) float32."""
    image = cv2.imread(str(file))
    if image is None:
        raise LTError(f"on {file}, which cannot be read as an image")
    image = LetterBox(size, auto=False)(image=image)[..., ::-1]
    planes = image[..., np.arange(channels) % 3].transpose(2, 0, 1)  # any input will do where there are not three
    return np.ascontiguousarray(planes, np.float32) / 255
