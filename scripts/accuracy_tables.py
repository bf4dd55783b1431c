"""RESULTS.md and its pictures, from the records of bench_accuracy.py alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accuracy_choice import Candidate, apart, bases, candidates, chosen, screened
from accuracy_limits import KINDS, error_rows, image_rows
from accuracy_pictures import draw_changes, draw_frontier
from accuracy_records import HUGE, Runs, Value, cost, difference, ratio, read, value

from yolo_lt.evaluate.binned import ROWS as BINS
from yolo_lt.files import replacing

METRICS = ("AP50", "AP")
STOCKS = ("stock", "stock-cls_pw")  # trained by Ultralytics itself
MANY = 3  # seeds that a claim takes
GOAL = {"ratio": 1.5, "ratio_low": 1.2, "lower": -0.01}
FRONTIER = "frontier.png"
INTRO = Path(__file__).with_name("accuracy_intro.md")


def write(results: Path, matrix: dict[str, Any]) -> None:
    """Write RESULTS.md and a picture per comparison into `results`; pictures that it no longer shows are removed."""
    old, found = set(results.glob(picture_of("*", "*"))), known(results, matrix)
    for name, rows in found.items():
        for base, others in groups(rows, matrix).items():
            path = results / picture_of(name, base)
            draw_changes(path, changes(others, rows[base]), base, GOAL["lower"])
            old.discard(path)
    for path in old:
        path.unlink(missing_ok=True)
    if drawn := frontier(found, matrix):
        draw_frontier(results / FRONTIER, drawn, GOAL)
    with replacing(results / "RESULTS.md") as temporary:
        temporary.write_text(text(found, matrix), encoding="utf-8")


def text(found: dict[str, dict[str, Runs]], matrix: dict[str, Any]) -> str:
    """RESULTS.md."""
    parts = [INTRO.read_text(encoding="utf-8").strip(), versions(found)]
    parts += choice(found, matrix) if "choice" in matrix else []
    parts += frontier_text(frontier(found, matrix))
    for name, rows in found.items():
        parts += section(name, matrix, rows)
    return "\n\n".join([*parts, commands(found)]) + "\n"


def known(results: Path, matrix: dict[str, Any]) -> dict[str, dict[str, Runs]]:
    """The records by set and row, in the order of the matrix."""
    found = read(results)
    return {n: {row: found[n][row] for row in matrix["rows"] if row in found[n]} for n in matrix["sets"] if n in found}


def versions(found: dict[str, dict[str, Runs]]) -> str:
    """What the runs were made with, each combination once."""
    made = [r["versions"] | {"CPU": r["machine"]["cpu"]} for _, _, r in each(found)]
    lines = dict.fromkeys(", ".join(f"{k} {v}" for k, v in m.items()) for m in made)
    return "\n".join(f"{len(made)} runs, made with {line}." for line in lines)


def each(found: dict[str, dict[str, Runs]]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """Set, row and record of every run."""
    return ((name, row, r) for name, rows in found.items() for row, runs in rows.items() for r in runs.values())


def choice(found: dict[str, dict[str, Runs]], matrix: dict[str, Any]) -> list[str]:
    """The rule for recipe=recommended and what it says, then every row once; nothing where no two can be compared."""
    rule = matrix["choice"]
    ranked, screen = candidates(found, rule), screened(found, rule["sets"], rule["seeds"][:1], bases(matrix))
    if not screen:
        return []
    best, drop, sets = chosen(ranked, rule["drop"]), rule["drop"], " and ".join(rule["sets"])
    seeds = ", ".join(map(str, rule["seeds"]))
    rule_text = (
        f"Of yolo_lt's rows with seeds {seeds} on {sets}: the largest ratio of AP50 of medium and tail "
        "classes together to stock's (geometric mean over the sets) among those whose AP50 of head and of all is at "
        f"most {drop:g} lower (mean over sets and seeds). Chosen: {best or 'none'}."
    )
    head = ["row", "against", "medium and tail AP50, ratio", "head AP50", "AP50 of all"]
    lines = [[*cells(c), "yes" if c.allowed(drop) else "no"] for c in ranked]
    screen_text = (
        f"Every row once: means over {sets}, seed {rule['seeds'][0]}. The seed alone moved AP50 of all by up to "
        f"{apart(found, rule):.3f} on a set (stock, seeds {seeds})."
    )
    parts = [f"## The choice\n\n{rule_text}", table([*head, "allowed"], lines)]
    return [*parts, screen_text, table(head, map(cells, screen))]


def cells(c: Candidate) -> list[str]:
    """A row on several sets at once."""
    return [c.row, c.base, f"{c.rare:.2f}", f"{c.head:+.3f}", f"{c.all:+.3f}"]


def section(name: str, matrix: dict[str, Any], rows: dict[str, Runs]) -> list[str]:
    """Everything about one set."""
    on, first = matrix["sets"][name], next(iter(next(iter(rows.values())).values()))
    sizes = ", ".join(f"{len(first['bins'][b])} {b}" for b in BINS[1:])
    where = "the training images split anew, val is their held-out part" if "split" in on else "split val"
    head = f"## {name}\n\n{on['epochs']} epochs ({first['iterations']} iterations), {where}; classes: {sizes}."
    parts = [head, *(by_bin(rows, metric) for metric in METRICS)]
    for base, others in groups(rows, matrix).items():
        told = "; ".join(
            f"{row} head {h.mean:+.3f}, tail {t.mean:+.3f}" for row, (h, t) in changes(others, rows[base]).items()
        )
        picture = f"![AP50 of head and tail against {base}: {told}]({picture_of(name, base)})"
        parts += [against(others, rows[base], base), picture]
    columns, lines = image_rows(rows)
    parts.append(table(["AP50 by training images (classes)", *columns], lines))
    if "split" not in on:
        parts.append(table(["AP50, and lost to", "bin", "AP50", *KINDS], error_rows(rows, ("head", "tail"))))
    return parts


def groups(rows: dict[str, Runs], matrix: dict[str, Any]) -> dict[str, dict[str, Runs]]:
    """The rows by what they are compared with: what the matrix names where it is there, else the better stock."""
    grouped: dict[str, dict[str, Runs]] = {}
    for row, runs in rows.items():
        named = matrix["rows"][row].get("base")
        base = named if named in rows else better_stock(rows)
        if base in rows and base != row and set(runs) & set(rows[base]):
            grouped.setdefault(base, {})[row] = runs
    return grouped


def picture_of(name: str, base: str) -> str:
    """File name of the picture of a set's rows against one of them."""
    return f"{name}-against-{base}.png"


def by_bin(rows: dict[str, Runs], metric: str) -> str:
    """The metric by bin: mean over seeds with its interval."""
    lines = [
        [row, str(len(runs)), *(shown(value(list(runs.values()), b, metric)) for b in BINS)]
        for row, runs in rows.items()
    ]
    return table([metric, "seeds", *BINS], lines)


def better_stock(rows: dict[str, Runs]) -> str | None:
    """Of the rows that Ultralytics trained and that have most seeds, the one with the better tail."""
    there = [row for row in STOCKS if row in rows]
    most = max((len(rows[row]) for row in there), default=0)
    there = [row for row in there if len(rows[row]) == most]
    return max(there, key=lambda row: value(list(rows[row].values()), "tail", "AP50").mean, default=None)


def against(rows: dict[str, Runs], base: Runs, name: str) -> str:
    """Every row against one of them, over the seeds that both have."""
    lines = [[row, str(len(set(runs) & set(base))), *compared(runs, base)] for row, runs in rows.items()]
    head = [f"against {name}", "seeds", "tail AP50, ratio", "tail AP50", "head AP50", "AP of all", "CPU time", "goal"]
    return table(head, lines)


def compared(runs: Runs, base: Runs) -> list[str]:
    """Ratio and differences to a stock row, the cost, and whether the goal is met."""
    times = ratio(runs, base, "tail", "AP50")
    tail, head = (difference(runs, base, b, "AP50") for b in ("tail", "head"))
    overall = difference(runs, base, "all", "AP")
    missed = [
        word
        for word, met in (
            ("ratio", times.mean >= GOAL["ratio"] and times.low > GOAL["ratio_low"]),
            ("head", head.low > GOAL["lower"]),
            ("AP", overall.low > GOAL["lower"]),
        )
        if not met
    ]
    verdict = "misses " + ", ".join(missed) if missed else "met"
    many = len(set(runs) & set(base)) >= MANY
    values = [shown(times, digits=2), *(shown(v, "+") for v in (tail, head, overall))]
    return [*values, f"{cost(runs, base):.2f}", verdict if many else "not judged"]


def changes(rows: dict[str, Runs], base: Runs) -> dict[str, tuple[Value, Value]]:
    """What each row did to the AP50 of head and of tail."""
    return {row: tuple(difference(runs, base, b, "AP50") for b in ("head", "tail")) for row, runs in rows.items()}


def frontier(found: dict[str, dict[str, Runs]], matrix: dict[str, Any]) -> dict[str, dict[str, tuple[Value, Value]]]:
    """By set with a val of its own and row with stock's seeds: head's difference to stock and tail's ratio, of AP50."""
    drawn: dict[str, dict[str, tuple[Value, Value]]] = {}
    for name, rows in found.items():
        base = rows.get("stock", {})
        if base and "split" not in matrix["sets"][name]:
            others = {row: runs for row, runs in rows.items() if row != "stock" and set(base) <= set(runs)}
            drawn[name] = {
                row: (difference(runs, base, "head", "AP50"), ratio(runs, base, "tail", "AP50"))
                for row, runs in others.items()
            }
    return drawn


def frontier_text(drawn: dict[str, dict[str, tuple[Value, Value]]]) -> list[str]:
    """The picture of the frontier with what it shows in words."""
    told = "; ".join(
        f"{name}: " + ", ".join(f"{row} head {h.mean:+.3f}, tail times {t.mean:.2f}" for row, (h, t) in rows.items())
        for name, rows in drawn.items()
    )
    return [f"## The frontier\n\n![Against stock, AP50. {told}]({FRONTIER})"] if drawn else []


def commands(found: dict[str, dict[str, Runs]]) -> str:
    """What each row is: the commands of its steps on the first set that has it, seed by seed alike but for `seed=`."""
    first: dict[str, dict[str, Any]] = {}
    for _, row, record in each(found):
        first.setdefault(row, record)
    lines = [[row, "<br>".join(f"`{step['command']}`" for step in r["steps"])] for row, r in first.items()]
    return "## The rows\n\n" + table(["row", "its steps"], lines)


def shown(v: Value, sign: str = "", digits: int = 3) -> str:
    """A value with its interval."""
    mean, low, high = ("inf" if x >= HUGE / 2 else f"{x:{sign}.{digits}f}" for x in v)
    return f"{mean} [{low}, {high}]"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
