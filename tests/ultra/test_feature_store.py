"""The store on disk: whole or not at all, refused before the first byte, and never believed when it is damaged."""

import subprocess
import sys

import numpy as np
import pytest

from yolo_lt.errors import LTError
from yolo_lt.ultra import feature_store
from yolo_lt.ultra.feature_store import Damaged, key_of, open_store, write_store


def chunks(n=6, step=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4, 3)).astype(np.float32)
    for i in range(0, n, step):
        truth = [{"cls": np.full((j % 3, 1), float(j)), "empty": np.zeros(0)} for j in range(i, i + step)]
        yield {"x": x[i : i + step], "y": x[i : i + step, :1]}, truth


def write(folder, key="k", limit=1.0, source=None):
    said = []
    write_store(folder, key, source or chunks(), 6, limit, said.append)
    return said


def test_what_is_written_is_read_again(tmp_path):
    said = write(tmp_path / "store")
    store = open_store(tmp_path / "store", "k")
    assert len(said) == 1
    assert said[0].startswith("feature cache: 6 samples, 1.8e-07 GB, in ")
    wanted = np.concatenate([arrays["x"] for arrays, _ in chunks()]).astype(np.float16)
    np.testing.assert_array_equal(store.gather([5, 0])["x"], wanted[[5, 0]])
    assert [store.truth_of(i)["cls"].shape for i in range(6)] == [(i % 3, 1) for i in range(6)]
    assert store.truth_of(5)["cls"].tolist() == [[5.0], [5.0]]
    assert store.size == 6


@pytest.mark.parametrize("harm", ["flip", "truncate", "missing", "json", "other key"])
def test_damage_is_found(tmp_path, harm):
    folder = tmp_path / "store"
    write(folder)
    file = folder / "x.f16"
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[7] ^= 4
        file.write_bytes(content)
    elif harm == "truncate":
        file.write_bytes(file.read_bytes()[:-2])
    elif harm == "missing":
        (folder / "truth.npz").unlink()
    elif harm == "json":
        (folder / "store.json").write_text("{")
    with pytest.raises(Damaged):
        open_store(folder, "another" if harm == "other key" else "k")


def test_no_store_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "none", "k")


def test_too_little_room_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    with pytest.raises(LTError, match=r"needs 1\.8e-07 GB and cache_limit is 1e-07: raise it"):
        write(tmp_path / "store", limit=1e-7)
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(LTError, match="has 1e-08 GB free"):
        write(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_value_beyond_float16_is_an_error(tmp_path):
    with pytest.raises(LTError, match="'x' has values beyond float16"):
        write(tmp_path / "store", source=iter([({"x": np.full((6, 1), 1e6)}, [{}] * 6)]))
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from yolo_lt.errors import LTError
from yolo_lt.ultra.feature_store import write_store
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
many = (({"x": np.zeros((10, 1000))}, [{"cls": np.zeros((1, 1))}] * 10) for _ in range(100))
try:
    write_store(Path(sys.argv[1]), "k", many, 1000, 1.0, print)
except LTError as e:
    print("error:", e)
"""


def test_a_disk_that_fills_up_leaves_the_old_store_and_nothing_else(tmp_path):
    """The kernel's own refusal: a process that may not write files beyond 50 kB."""
    write(tmp_path / "store")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "store")], capture_output=True, text=True)
    assert "error: feature cache" in done.stdout, done.stderr
    assert "give another cache_dir= or free space" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert open_store(tmp_path / "store", "k").size == 6


def test_what_a_killed_process_left_is_swept(tmp_path):
    left = tmp_path / ".store.4711.tmp"
    left.mkdir()
    (left / "x.f16").write_bytes(b"half")
    write(tmp_path / "store")
    assert not left.exists()


def test_the_key_is_of_the_facts_not_of_their_order():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
