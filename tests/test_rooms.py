"""The rooms keep to their walls: who may import what (DESIGN section 2)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "yolo_lt"
MAY_USE_ULTRALYTICS = {"api.py", "convert.py", "demo.py"}  # beside the room ultra/
FORBIDDEN = {
    "dataset": {"torch", "ultralytics", "matplotlib"},
    "balance": {"ultralytics", "matplotlib", "cv2"},
    "calibrate": {"ultralytics", "matplotlib", "cv2"},
    "evaluate": {"torch", "ultralytics", "matplotlib", "cv2"},
    "report": {"torch", "ultralytics", "cv2"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stay_in_their_room(path):
    room = path.relative_to(PACKAGE).parts[0]
    used = {name.split(".")[0] for name in imports(path)}
    if room != "ultra" and path.name not in MAY_USE_ULTRALYTICS:
        assert "ultralytics" not in used
    assert not used & FORBIDDEN.get(room, set())
    if room in FORBIDDEN:
        assert not any(name.startswith(("yolo_lt.ultra", "yolo_lt.api")) for name in imports(path))


def test_dataset_and_evaluate_and_factors_are_pure_numpy():
    names = (
        "sampling",
        "stream",
        "paste",
        "strategy",
        "weights",
        "plan",
        "loss_plan",
        "margins",
        "federated",
        "exposure",
    )
    for path in [PACKAGE / "balance" / f"{n}.py" for n in names]:
        assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


def test_the_data_flow_has_one_direction():
    order = ["dataset", "balance", "calibrate", "evaluate", "report", "ultra"]
    for room in order:
        later = {f"yolo_lt.{r}" for r in order[order.index(room) + 1 :]}
        for path in (PACKAGE / room).rglob("*.py"):
            assert not {n for n in imports(path) if any(n.startswith(x) for x in later)}, path
