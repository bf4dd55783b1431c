"""`yolo-lt export`: Ultralytics' own export with our metadata, checked before the file takes its name."""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ultralytics.engine.exporter import export_formats
from ultralytics.utils import LOGGER

from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra import labels, parity
from yolo_lt.ultra.calibrated import record_of
from yolo_lt.ultra.metadata import calibration_facts, class_facts, threshold_facts
from yolo_lt.ultra.preflight import PREFIX

DEFAULT_CONF = 0.25  # Ultralytics' confidence of NMS inside a file
ENOUGH = 0.1  # highest score from which a comparison means something
ONE_FILE = ("onnx", "torchscript")  # written apart and renamed; other formats write where and what Ultralytics chooses


def run_export(model: Any, export: Callable[..., str], lt: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Export through Ultralytics' own `export`; an ONNX file takes its name only if it equals the checkpoint.

    Args:
        model: The YOLOLT.
        export: Ultralytics' unbound-to-us `export`.
        lt: Every yolo-lt key.
        theirs: Ultralytics' keys.

    Returns:
        Path of the exported file or folder.

    Raises:
        UsageError: A format that does not exist, or keys that do not go with it.
        LTError: A missing package, bad files or data, or a file that differs from the checkpoint.
    """
    theirs = {**theirs, "format": check_format(theirs.get("format") or "onnx")}
    weights = Path(str(getattr(model, "ckpt_path", None) or model.model_name))
    names = [model.names[i] for i in range(len(model.names))]
    data = labels.load_data(theirs["data"], allow_download=lt["allow_download"]) if theirs.get("data") else None
    conf = theirs.get("conf")
    facts = threshold_facts(lt["thresholds"], names, DEFAULT_CONF if conf is None else conf)
    if facts and theirs.get("nms"):
        theirs["conf"] = min(json.loads(facts["lt_thresholds"]))  # no threshold can bring back what NMS drops
    images = []
    if theirs["format"] == "onnx":
        check_packages(theirs.get("simplify") is not False, lt["parity"] is not False)
        images = parity.find_images(lt["parity"], data, model.overrides.get("data"))
    facts = {**class_facts(weights, names, data, model.task), **calibration_facts(record_of(model.ckpt)), **facts}
    with ExitStack() as stack:
        start = Start(facts, bool(data), stack)
        written = _export(model, export, theirs, start)
        if start.exporter.args.format != "onnx":
            LOGGER.info(f"{PREFIX}only onnx is compared with the checkpoint, this is {start.exporter.args.format}")
        if not start.apart:
            return written
        if images:
            _check_parity(Path(written), model.model, start, images, weights)
        final = start.target / Path(written).name
        os.replace(written, final)
    LOGGER.info(f"{PREFIX}{final} ({final.stat().st_size / 2**20:.1f} MB)")
    return str(final)


class Start:
    """Ultralytics' callback `on_export_start`: the last moment before files are written, with every key resolved.

    Attributes:
        exporter: Ultralytics' exporter, which `export` itself does not hand out.
        target: Folder in which the exported file belongs.
        apart: Whether the file is written in a temporary folder beside its place.
    """

    exporter: Any = None
    target: Path
    apart = False

    def __init__(self, facts: dict[str, str], has_data: bool, stack: ExitStack) -> None:
        self.facts, self.has_data, self.stack = facts, has_data, stack

    def __call__(self, exporter: Any) -> None:
        """Add our metadata to Ultralytics' and send a single file to the temporary folder."""
        self.exporter, self.target = exporter, exporter.file.parent
        if exporter.args.data and not self.has_data:  # Ultralytics would download a data set of its own choice
            raise UsageError(f"format={exporter.args.format} needs images to calibrate on: give data=...")
        exporter.metadata.update(self.facts)
        self.apart = exporter.args.format in ONE_FILE
        if self.apart:
            folder = self.stack.enter_context(_folder_in(self.target))
            exporter.file = folder / exporter.file.name


def check_format(name: Any) -> str:
    """The format in lower case; Ultralytics would take a mistyped one for the nearest.

    Raises:
        UsageError: It is close to a format, but none.
    """
    formats, name = export_formats()["Argument"][1:], str(name).lower()
    close = difflib.get_close_matches(name, formats, n=1)
    if name not in formats and close:
        raise UsageError(f"format={name} does not exist; did you mean {close[0]}?")
    return name  # anything else is one of Ultralytics' aliases, or its own error


def check_packages(simplify: bool, check: bool) -> None:
    """Import what an ONNX export needs; Ultralytics would try to install it.

    Raises:
        LTError: A package is missing.
    """
    needed = {"onnx": "writes the file", "onnxslim": "simplifies it", "onnxruntime": "runs it for the parity check"}
    for name, why in needed.items():
        if (name == "onnxslim" and not simplify) or (name == "onnxruntime" and not check):
            continue
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise LTError(f"format=onnx needs the package {name}, which {why} ({e}): pip install {name}") from None


def _export(model: Any, export: Callable[..., str], theirs: dict[str, Any], start: Start) -> str:
    """Ultralytics' export with our callback; its exceptions as ours."""
    formats = export_formats()
    takes = dict(zip(formats["Argument"], formats["Arguments"], strict=True)).get(theirs["format"], ["data"])
    if "data" not in takes:
        theirs = {k: v for k, v in theirs.items() if k != "data"}  # it was for our bins and images only
    callbacks = model.callbacks["on_export_start"]
    callbacks.append(start)
    try:
        return export(**theirs)
    except LTError:
        raise
    except (AssertionError, TypeError, ValueError) as e:  # before the start these are about keys
        raise (LTError if start.exporter else UsageError)(f"format={theirs['format']}: {labels.plain(e)}") from None
    except Exception as e:
        raise LTError(f"format={theirs['format']}: {type(e).__name__}: {labels.plain(e)}") from None
    finally:
        callbacks.remove(start)


def _check_parity(file: Path, net: Any, start: Start, images: list[Path], weights: Path) -> None:
    """Compare and say so, or raise before the file takes its name."""
    if start.exporter.args.quantize == 8:
        LOGGER.warning(f"{PREFIX}not compared with the checkpoint: quantize=8 changes the scores by design")
        return
    graph = parity.graph_of(start.exporter)
    try:
        found = parity.check(file, net, graph, images)
    except LTError as e:
        raise LTError(
            f"{file.name} would differ from {weights} {e}. It was not written; parity=false leaves this check out"
        ) from None
    half = f" (float16: {graph.tolerance:g} is allowed)" if graph.tolerance > parity.TOLERANCE["float32"][0] else ""
    sizes = " and ".join(f"{h}x{w}" for h, w in graph.sizes)
    LOGGER.info(
        f"{PREFIX}onnx equals the checkpoint{half}: {len(images)} images at {sizes}, {found.boxes} boxes, "
        f"{found.text()}\n{PREFIX}compared on {', '.join(p.name for p in images)} in {images[0].parent}"
    )
    if found.top < ENOUGH:
        LOGGER.warning(
            f"{PREFIX}no box on these images scores above {max(found.top, graph.conf):.2g}, so the comparison says "
            "little: parity=FOLDER takes images that hold objects"
        )


@contextmanager
def _folder_in(place: Path) -> Iterator[Path]:
    """A temporary folder in `place`; Ultralytics' lines that name it are kept from the log, the caller writes its own.

    Raises:
        LTError: `place` cannot be written to.
    """
    try:
        temporary = TemporaryDirectory(prefix=".export-", dir=place, ignore_cleanup_errors=True)
    except OSError as e:
        raise LTError(f"{place} cannot be written to: {e.strerror}") from None

    def names_other_places(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or Path(temporary.name).name not in record.getMessage()

    with temporary:
        LOGGER.addFilter(names_other_places)
        try:
            yield Path(temporary.name)
        finally:
            LOGGER.removeFilter(names_other_places)
