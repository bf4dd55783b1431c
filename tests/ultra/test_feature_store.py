"""The store of features on disk: whole or not at all, checked to the last byte, refused before it hurts."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from yolo_lt.errors import LTError
from yolo_lt.ultra.feature_store import Damaged, key_of, open_store, write_store

SAMPLES = 7


def arrays(rng, n):
    return {
        "input.0": rng.normal(size=(n, 4, 3, 3)).astype(np.float32),
        "one2many.boxes": rng.normal(size=(n, 8, 5)).astype(np.float32),
    }


def truth(rng, boxes):
    masks = rng.integers(0, 3, (1, 4, 4)).astype(np.uint8)
    return {
        "cls": np.arange(boxes, dtype=np.float32)[:, None],
        "bboxes": rng.random((boxes, 4)).astype(np.float32),
        "masks": masks,
        "keypoints": rng.random((boxes, 2, 3)).astype(np.float32),
        "lt_tiles": np.arange(boxes + 1),
    }


def chunks(seed=0, sizes=(3, 3, 1)):
    """Batches of features and truths; the second sample of every batch has no box."""
    rng = np.random.default_rng(seed)
    for n in sizes:
        yield arrays(rng, n), [truth(rng, boxes=(2, 0, 3)[i]) for i in range(n)]


def write(folder, key="k", seed=0, limit_gb=1.0, announce=lambda text: None, content=None):
    write_store(folder, key, content or chunks(seed), SAMPLES, limit_gb, announce)


def everything(store):
    return {
        **store.gather(list(range(store.size))),
        **{f"{i}.{k}": v for i in range(store.size) for k, v in store.truth_of(i).items()},
    }


def test_what_is_read_is_what_was_written(tmp_path):
    write(tmp_path / "store")
    store = open_store(tmp_path / "store", "k")
    wanted = list(chunks())
    assert store.size == SAMPLES
    for name in ("input.0", "one2many.boxes"):
        whole = np.concatenate([a[name] for a, _ in wanted]).astype(np.float16)
        np.testing.assert_array_equal(store.gather(list(range(SAMPLES)))[name], whole)
        np.testing.assert_array_equal(store.gather([5, 0, 5])[name], whole[[5, 0, 5]])
        assert store.gather([5])[name].dtype == np.float16
    truths = [t for _, samples in wanted for t in samples]
    for i, expected in enumerate(truths):
        found = store.truth_of(i)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_the_size_is_announced_before_the_first_byte_and_is_right(tmp_path):
    said = []

    def announce(text):
        said.append((text, sorted(p.name for p in tmp_path.rglob("*.*16"))))

    write(tmp_path / "store", announce=announce)
    need = SAMPLES * (4 * 3 * 3 + 8 * 5) * 2
    assert len(said) == 1
    assert f"{SAMPLES} samples, {need / 1e9:.3g} GB" in said[0][0]
    assert said[0][1] == [], "no file was open yet"
    assert sum(p.stat().st_size for p in (tmp_path / "store").glob("*.f16")) == need


def test_a_limit_that_does_not_suffice_is_refused_before_the_first_byte(tmp_path):
    taken = []

    def content():
        for chunk in chunks():
            taken.append(1)
            yield chunk

    with pytest.raises(LTError, match=r"needs 1.06e-06 GB and cache_limit is 1e-06: raise it or imgsz=less"):
        write(tmp_path / "store", limit_gb=1e-6, content=content())
    assert len(taken) == 1, "one batch tells the size"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 1000, 1000))
    with pytest.raises(LTError, match=r"needs 1.06e-06 GB and .* has 1e-06 GB free"):
        write(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_feature_store import arrays, truth, write
import numpy as np
rng = np.random.default_rng(0)
big = lambda: (({{"input.0": rng.normal(size=(1, 400, 10, 10)).astype(np.float32)}}, [truth(rng, 1)]) for _ in range(7))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # the third sample does not fit; Python ignores SIGXFSZ
try:
    write(Path({folder!r}), content=big())
except Exception as e:
    print(type(e).__name__, e)
"""


@pytest.mark.parametrize("old", [False, True])
def test_a_disk_that_fills_up_while_writing_leaves_what_was_there(tmp_path, old):
    if old:
        write(tmp_path / "features" / "store")
    code = FULL_DISK.format(tests=os.path.dirname(__file__), folder=str(tmp_path / "features" / "store"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("LTError feature cache"), done.stdout + done.stderr
    assert "File too large; give another cache_dir= or free space" in done.stdout
    assert [p.name for p in (tmp_path / "features").iterdir()] == ["store"] * old
    if old:
        assert open_store(tmp_path / "features" / "store", "k").size == SAMPLES


def test_a_failure_keeps_the_stores_of_other_keys(tmp_path):
    write(tmp_path / "good", "good")
    kept = everything(open_store(tmp_path / "good", "good"))
    with pytest.raises(LTError):
        write(tmp_path / "other", "other", limit_gb=1e-9)
    again = everything(open_store(tmp_path / "good", "good"))
    assert all((again[k] == kept[k]).all() for k in kept)
    assert [p.name for p in tmp_path.iterdir()] == ["good"]


def test_values_beyond_float16_are_refused_and_named(tmp_path):
    bad = list(chunks())
    bad[1][0]["one2many.boxes"][0, 0, 0] = 7e4
    with pytest.raises(LTError, match=r"'one2many.boxes' has values beyond float16, .* feature_cache=false"):
        write(tmp_path / "store", content=iter(bad))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/below", "/proc/yolo-lt"])
def test_a_place_that_cannot_be_written_is_a_plain_error(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(LTError, match="give another cache_dir= or free space") as e:
        write(tmp_path / place / "store")
    assert "Errno" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def flip(folder):
    path = folder / "input.0.f16"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def cut(folder):
    path = folder / "one2many.boxes.f16"
    path.write_bytes(path.read_bytes()[:-1])


def edit(folder):
    content = json.loads((folder / "store.json").read_text())
    del content["shapes"]
    (folder / "store.json").write_text(json.dumps(content))


DAMAGES = {
    "a flipped bit": flip,
    "a cut file": cut,
    "a missing array": lambda folder: (folder / "input.0.f16").unlink(),
    "a missing truth": lambda folder: (folder / "truth.npz").unlink(),
    "a changed truth": lambda folder: (folder / "truth.npz").write_bytes(b"PK"),
    "no json": lambda folder: (folder / "store.json").unlink(),
    "empty json": lambda folder: (folder / "store.json").write_text(""),
    "json of another kind": lambda folder: (folder / "store.json").write_text("[1]"),
    "half the json": edit,
    "bytes for json": lambda folder: (folder / "store.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_seen_and_a_new_store_takes_its_place(tmp_path, damage):
    folder = tmp_path / "store"
    write(folder)
    before = everything(open_store(folder, "k"))
    before = {k: np.array(v) for k, v in before.items()}
    DAMAGES[damage](folder)
    with pytest.raises(Damaged) as e:
        open_store(folder, "k")
    assert str(e.value)
    write(folder)
    after = everything(open_store(folder, "k"))
    assert before.keys() == after.keys()
    assert all((before[k] == after[k]).all() for k in before)


def test_a_store_of_something_else_is_not_taken(tmp_path):
    write(tmp_path / "store", "k")
    with pytest.raises(Damaged, match="made from something else"):
        open_store(tmp_path / "store", "another")
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "none", "k")


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for name in (f".store.{killed.pid}.tmp", f".store.{os.getppid()}.tmp", f".other.{killed.pid}.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "input.0.f16").write_bytes(b"half")
    write(tmp_path / "store")
    assert {p.name for p in tmp_path.iterdir()} == {f".store.{os.getppid()}.tmp", f".other.{killed.pid}.tmp", "store"}


def test_keys_differ_with_every_fact_and_not_with_their_order():
    facts = {"frozen": "abc", "imgsz": 64, "masks": (True, 4)}
    assert key_of(facts) == key_of(dict(reversed(facts.items())))
    for name, value in (("frozen", "abd"), ("imgsz", 96), ("masks", (False, 4))):
        assert key_of({**facts, name: value}) != key_of(facts)


def test_a_worker_gets_the_paths_and_not_the_features(tmp_path):
    """Spawned and forkserver workers get the data set pickled; a store may be many times the memory."""
    write(tmp_path / "store", content=(({"input.0": np.ones((1, 100, 50))}, [{"cls": np.ones((1, 1))}]),) * SAMPLES)
    store = open_store(tmp_path / "store", "k")
    store.gather([0])
    raw = pickle.dumps(store)
    assert len(raw) < 2000 < 2 * SAMPLES * 100 * 50
    np.testing.assert_array_equal(pickle.loads(raw).gather([6, 1])["input.0"], store.gather([6, 1])["input.0"])


def test_sizes_that_do_not_fit_the_shapes_are_damage(tmp_path):
    write(tmp_path / "store")
    path = tmp_path / "store" / "store.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "size": SAMPLES - 1}))
    with pytest.raises(Damaged, match="reshape"):
        open_store(tmp_path / "store", "k")
