"""What each recipe does to the tail and the head, and what it costs: every row of accuracy.yaml, at equal iterations.

    python scripts/bench_accuracy.py root=DIR                # every run that has no record yet, then the tables
    python scripts/bench_accuracy.py root=DIR sets=fod31lt rows=rfs seeds=0 again=true   # one run, against its record
    python scripts/bench_accuracy.py tables=true             # RESULTS.md and its pictures from the records

DIR holds the data sets and the starting weights under the names that accuracy.yaml has for them. Keys: sets, rows,
seeds (lists with commas: of these alone), jobs=2 (runs at a time, each one process with one thread), out=runs/accuracy,
results=scripts/results, matrix=scripts/accuracy.yaml, commit=true (git commit of each record as its run ends).

A run that has a record is not done again, so the script can be stopped and started at will. A run that was cut off is
started anew: a resumed training does not repeat an uninterrupted one to the last digit. Steps that rows share (stage
one of the decoupled rows, a training that is then calibrated) are done once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from accuracy_run import VERBS, recorded
from accuracy_tables import write

from yolo_lt import api, cli
from yolo_lt.files import new_folder
from yolo_lt.ultra.labels import class_stats

HERE = Path(__file__).resolve().parent
SAME = ("metrics", "iterations", "weights_sha256")  # of a record, in which a second run must agree
Job = dict[str, Any]


def main() -> None:
    given = cli.parse(sys.argv[1:])
    results = Path(given.pop("results", HERE / "results")).resolve()
    matrix = yaml.safe_load(Path(given.pop("matrix", HERE / "accuracy.yaml")).read_text(encoding="utf-8"))
    if not given.pop("tables", False):
        work(matrix, given, results)
    write(results, matrix)


def work(matrix: dict[str, Any], given: dict[str, Any], results: Path) -> None:
    """Do the runs of the matrix that were asked for and have no record."""
    out = Path(given.pop("out", "runs/accuracy")).resolve()
    root = Path(given.pop("root", "../shared")).resolve()
    limit, commit, again = int(given.pop("jobs", 2)), bool(given.pop("commit", False)), bool(given.pop("again", False))
    wanted = {name: listed(given.pop(name, None)) for name in ("sets", "rows", "seeds")}
    if given:
        sys.exit(f"unknown keys: {', '.join(given)}")
    if again:  # nothing of an earlier run may be taken for this one
        out = out / "again"
        shutil.rmtree(out, ignore_errors=True)
    target = out / "results" if again else results
    jobs = [job_of(matrix, *run, root, out, target) for run in runs_of(matrix, **wanted)]
    jobs = [job for job in jobs if again or not Path(job["result"]).exists()]
    print(f"{len(jobs)} runs to do, {limit} at a time; logs are in {out}", flush=True)
    for name in dict.fromkeys(job["about"]["set"] for job in jobs):
        prepare(matrix["sets"][name], name, root, out)
    for job, code in done(jobs, out, limit):
        say(job, code, out)
        if code:
            continue
        if again:
            compare(Path(job["result"]), results)
            continue
        write(results, matrix)
        if commit:
            record(results, "{set}/{row}, seed {seed}".format(**job["about"]))


def listed(value: Any) -> list[str] | None:
    """A list of words, whatever the command line made of it."""
    if value is None:
        return None
    return [str(v) for v in (value if isinstance(value, (list, tuple)) else str(value).split(","))]


def runs_of(
    matrix: dict[str, Any], sets: list[str] | None, rows: list[str] | None, seeds: list[str] | None
) -> Iterator[tuple[str, str, int]]:
    """Set, row and seed of every run, each once, in the order of the matrix."""
    seen = set()
    for entry in matrix["runs"]:
        for run in ((s, r, d) for d in entry["seeds"] for s in entry["sets"] for r in entry["rows"]):
            asked = all(w is None or str(v) in w for v, w in zip(run, (sets, rows, seeds), strict=True))
            if asked and run not in seen:
                seen.add(run)
                yield run


def job_of(matrix: dict[str, Any], name: str, row: str, seed: int, root: Path, out: Path, results: Path) -> Job:
    """What accuracy_run.py needs to know of a run."""
    steps = steps_of(matrix, name, row, out)
    steps = [{**step, "seed": seed, "folder": f"{name}/{step['row']}-s{seed}"} for step in steps]
    steps[0]["weights"] = str(root / matrix["protocol"]["model"])
    command = f"python scripts/bench_accuracy.py root=DIR sets={name} rows={row} seeds={seed} again=true"
    about = {"set": name, "row": row, "seed": seed, "command": command}
    result = results / name / f"{row}-s{seed}.json"
    return {"about": about, "steps": steps, "out": str(out), "result": str(result)}


def steps_of(matrix: dict[str, Any], name: str, row: str, out: Path) -> list[dict[str, Any]]:
    """The chain of steps behind a row, the first first."""
    spec, on, protocol = matrix["rows"][row], matrix["sets"][name], matrix["protocol"]
    verb = next(v for v in VERBS if v in spec)
    keys = {"data": str(out / "data" / name / "data.yaml"), "imgsz": protocol["imgsz"]}
    if verb != "calibrate":
        keys |= {**protocol["keys"], "epochs": round(on["epochs"] * spec.get("share", 1))}
    if verb in ("stock", "train"):
        keys |= protocol["training"] | on.get("training", {})
    before = steps_of(matrix, name, spec["of"], out) if "of" in spec else []
    return [*before, {"row": row, "verb": verb, "keys": keys | spec[verb]}]


def prepare(on: dict[str, Any], name: str, root: Path, out: Path) -> None:
    """A copy of the data in `out`, with Ultralytics' label caches, so that runs side by side need not write them."""
    target, source = out / "data" / name, root / on["data"]
    if target.exists():
        return
    if "split" in on:
        whole = out / "data" / f"{name}-whole"
        copy(source, whole)
        api.split(data=str(whole / "data.yaml"), pool="train", val_share=on["split"], seed=0, out=str(target))
    else:
        with new_folder(target) as temporary:
            copy(source, temporary)
    for part in ("train", "val"):
        class_stats(target / "data.yaml", part)


def copy(source: Path, target: Path) -> None:
    """Copy a folder; it can be written to even where the source cannot."""
    shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for folder in (target, *(p for p in target.rglob("*") if p.is_dir())):
        folder.chmod(0o755)


def done(jobs: list[Job], out: Path, limit: int) -> Iterator[tuple[Job, int]]:
    """Run the jobs, at most `limit` at a time, and yield each with its exit code as it ends."""
    waiting, running = list(jobs), {}
    while waiting or running:
        busy = {folder for job in running.values() for folder in folders(job)}
        free = next((job for job in waiting if not busy & folders(job)), None)
        if free is not None and len(running) < limit:
            waiting.remove(free)
            running[start(free, out)] = free
            continue
        ended = [process for process in running if process.poll() is not None]
        yield from ((running.pop(process), process.returncode) for process in ended)
        time.sleep(0 if ended else 1)


def folders(job: Job) -> set[str]:
    """The folders that a job writes: those of its steps that are not done."""
    return {s["folder"] for s in job["steps"] if recorded(s, Path(job["out"])) is None}


def start(job: Job, out: Path) -> subprocess.Popen:
    """Start a run in a process of its own, with one thread: sums in another order end in other digits."""
    folder = folder_of(job, out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    with open(folder / "log.txt", "wb") as log:
        words = [sys.executable, str(HERE / "accuracy_run.py"), str(folder / "job.json")]
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=env)


def folder_of(job: Job, out: Path) -> Path:
    """Where the job and its log lie."""
    return out / "jobs" / "{set}-{row}-s{seed}".format(**job["about"])


def say(job: Job, code: int, out: Path) -> None:
    """A line per run: AP50 by bin, or where to read what went wrong."""
    name = "{set} {row} seed {seed}".format(**job["about"])
    if code:
        print(f"{time.strftime('%H:%M')} {name} failed, see {folder_of(job, out) / 'log.txt'}", flush=True)
        return
    found = json.loads(Path(job["result"]).read_text(encoding="utf-8"))
    cells = ", ".join(f"{n} {m['AP50']:.3f}" for n, m in found["metrics"].items() if m and m["AP50"] is not None)
    print(f"{time.strftime('%H:%M')} {name}: AP50 {cells}; {found['cpu_seconds']:.0f} s of CPU", flush=True)


def record(results: Path, run: str) -> None:
    """Commit a record and the tables; if git is busy, the next one takes them along."""
    for words in (["add", str(results)], ["commit", "-q", "-m", f"Add the run {run}", "--", str(results)]):
        subprocess.run(["git", "-C", str(results), *words], check=False)


def compare(path: Path, results: Path) -> None:
    """Say whether a run agrees with its committed record."""
    ours = json.loads(path.read_text(encoding="utf-8"))
    kept = results / path.parent.name / path.name
    theirs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    differing = [k for k in SAME if ours[k] != theirs.get(k)]
    differing += [f"{k} {theirs[w].get(k)} instead of {v}" for w in ("versions", "machine") if w in theirs
                  for k, v in ours[w].items() if theirs[w].get(k) != v]  # fmt: skip
    print(
        f"  {kept}: {'equal to the last digit' if not differing else 'differs in ' + ', '.join(differing)}", flush=True
    )


if __name__ == "__main__":
    main()
