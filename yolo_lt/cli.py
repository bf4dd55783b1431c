"""The command line: verb to function, key=value to keyword. No logic, and no torch until a verb runs."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import Any

from yolo_lt import __version__, config
from yolo_lt.errors import LTError, UsageError

VERBS = {
    "demo": "embedded data: stats, a stock and a balanced training, val of both, side by side",
    "stats": "counts, imbalance and bins of a data set, and what a recipe would do with it",
    "train": "train an Ultralytics model with a recipe",
    "finetune-head": "re-train the classification branch of a checkpoint, everything else frozen",
    "calibrate": "a per-class map of the logits, chosen on held-out images, folded into a copy of the checkpoint",
    "val": "AP, AP50, AP75 and AR for all, head, medium and tail, with intervals, and why AP is lost",
    "compare": "validations A B ...: the differences to A by bin with intervals, and a page; A0,A1 B0,B1: one per seed",
    "predict": "drawn images and JSON as from Ultralytics, with a confidence threshold per class",
    "export": "ONNX that equals the checkpoint (checked), with bins and class counts inside; other formats as well",
    "convert": "lvis, coco or openimages to Ultralytics' layout, with what was looked for where",
    "make-lt": "a long-tailed subset of a data set's training images, with wished counts per class",
    "split": "a data set split anew, stratified by class; near-duplicates and groups stay together",
    "cfg": "every yolo-lt key and its default",
    "checks": "what is installed, and of which data set's official files are there: checks lvis annotations=DIR",
    "version": "the version",
}
WITHOUT_TORCH = {"convert": "yolo_lt.convert", "checks": "yolo_lt.checks"}  # all others are in api.py
WITH_WORDS = ("compare", "convert", "checks")  # verbs that take words without a key
USAGE = "usage: yolo-lt VERB key=value ...    (--key value works too; every Ultralytics key passes through)"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 success, 2 wrong usage, 1 bad files or data, or a failure."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return run(argv)
    except LTError as e:
        return _fail(e, e.exit_code, argv)
    except BrokenPipeError:  # `yolo-lt cfg | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as e:  # whatever Ultralytics raises while running: a sentence, and the traceback on request
        return _fail(e, 1, argv)


def run(argv: list[str]) -> int:
    """Parse and dispatch; errors are raised."""
    if not argv or argv[0] in {"help", "-h", "--help"}:
        print(help_text())
        return 0
    verb, rest = argv[0], argv[1:]
    if verb in {"--version", "-V"}:
        verb = "version"
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        raise UsageError(f"unknown verb '{verb}'" + (f"; did you mean '{close[0]}'?" if close else f". {USAGE}"))
    if {"-h", "--help"} & set(rest):
        print(help_text(verb))
        return 0
    words: list[str] = []
    args = parse(rest, words if verb in WITH_WORDS else None)
    if verb in {"cfg", "version"}:
        print(__version__ if verb == "version" else help_text("cfg"))
        return 0
    getattr(import_module(WITHOUT_TORCH.get(verb, "yolo_lt.api")), verb.replace("-", "_"))(*words, **args)
    return 0


def parse(words: list[str], bare: list[str] | None = None) -> dict[str, Any]:
    """`key=value`, `--key=value`, `--key value` and a bare `--flag` as keywords.

    Args:
        words: The command line behind the verb.
        bare: Takes words that are none of them, where a verb has such.

    Raises:
        UsageError: A word that is none of them, or a key given twice.
    """
    args: dict[str, Any] = {}
    i = 0
    while i < len(words):
        word, i = words[i], i + 1
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and word.startswith("--"):
            follows = i < len(words) and "=" not in words[i] and not words[i].startswith("--")
            value, i = (words[i], i + 1) if follows else ("true", i)
        elif not equals and bare is not None:
            bare.append(word)
            continue
        elif not equals:
            raise UsageError(f"'{word}' is no key=value. {USAGE}")
        name = name.strip().replace("-", "_")
        if name in args:
            raise UsageError(f"{name} is given twice")
        args[name] = config.parse_value(value)
    return args


def help_text(verb: str | None = None) -> str:
    """Help, made from cfg/default.yaml; for one verb only its own keys."""
    lines = [USAGE, ""]
    if verb is None:
        lines += [f"  {name:<15}{text}" for name, text in VERBS.items()]
        return "\n".join([*lines, "", "yolo-lt VERB --help lists the keys of a verb"])
    section = None
    for key in config.keys().values():
        if verb not in key.verbs and verb != "cfg":
            continue
        if key.section != section:
            section = key.section
            lines += ["", section]
        lines += [f"  {key.name}={key.shown}  ({' | '.join(key.kinds)})", f"      {key.help}"]
    return "\n".join(lines)


def _fail(error: Exception, code: int, argv: list[str]) -> int:
    """One or two sentences on stderr; the traceback only with debug=true."""
    if any(word.lstrip("-") in {"debug", "debug=true", "debug=True", "debug=1"} for word in argv):
        raise error
    text = str(error) if isinstance(error, LTError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(f"yolo-lt: error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
