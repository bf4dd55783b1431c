"""Our keys: read from cfg/default.yaml, type-checked, split from Ultralytics' keys. No torch, no ultralytics.

`cfg/default.yaml` is the one source: a line `key: value # (kinds) meaning` gives name, default, accepted values and
help. `kinds` are alternatives separated by `|`: `bool`, `path`, `folder`, `text`, `list`, `two numbers`, `number` or
`integer` with an optional range (`> 0`, `in [0, 1)`), and anything else is a literal choice.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from yolo_lt.errors import LTError, UsageError

_SECTION = re.compile(r"^# (?P<title>.+?) --- (?P<verbs>[\w, -]+)$")
_KEY = re.compile(r"^(?P<name>\w+): (?P<value>.*?) # \((?P<kinds>.+?)\) (?P<help>.+)$")
_RANGE = re.compile(r"^(number|integer)(?: (>=|>) (\S+)| in ([\[(])(\S+), (\S+?)([\])]))?$")
_NON_LITERALS = ("bool", "path", "folder", "text", "list", "two numbers")
_ALSO_THEIRS = {"save_dir", "augmentations"}  # Ultralytics takes these beside its default.yaml,
_OLD_NAMES = {"half", "int8", "end2end", "boxes", "hide_labels", "hide_conf", "line_thickness"}  # and maps these on


@dataclass(frozen=True)
class Key:
    """One line of cfg/default.yaml."""

    name: str
    default: Any
    kinds: tuple[str, ...]
    help: str
    section: str
    verbs: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The default as it is written in YAML and on the command line."""
        if isinstance(self.default, list):
            return ",".join(map(str, self.default))
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    @property
    def choices(self) -> list[str]:
        """The literal choices among the kinds."""
        return [k for k in self.kinds if k not in _NON_LITERALS and not _RANGE.match(k)]


@cache
def keys() -> dict[str, Key]:
    """Every yolo-lt key by name, in the order of cfg/default.yaml."""
    text = files("yolo_lt.cfg").joinpath("default.yaml").read_text(encoding="utf-8")
    found: dict[str, Key] = {}
    section, verbs = "", tuple[str, ...]()
    for line in text.splitlines():
        if m := _SECTION.match(line):
            section, verbs = m["title"], tuple(v.strip() for v in m["verbs"].split(","))
        elif m := _KEY.match(line):
            kinds = tuple(k.strip() for k in m["kinds"].split("|"))
            key = Key(m["name"], None, kinds, m["help"], section, verbs)
            found[key.name] = replace(key, default=_convert(key, parse_value(m["value"])))
    return found


@cache
def ultralytics_defaults() -> dict[str, Any]:
    """Ultralytics' own keys and defaults, read from its default.yaml without importing the package."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.origin:
        raise LTError("Ultralytics is not installed: pip install 'ultralytics>=8.4.180,<8.5'")
    return yaml.safe_load((Path(spec.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8"))


def parse_value(text: str) -> Any:
    """A command-line value as Python: numbers, lists and tuples, true/false/none; anything else stays text."""
    words = {"true": True, "false": False, "none": None, "null": None, "": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def split(args: dict[str, Any], verb: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keys of one call into ours (checked) and Ultralytics' (passed through).

    Returns:
        The given yolo-lt keys, without defaults, and the remaining Ultralytics keys.

    Raises:
        UsageError: An unknown key, a key that cannot act in this verb, or a value of the wrong kind.
    """
    args = merge_cfg_file(args)
    ours = {k: v for k, v in args.items() if k in keys()}
    theirs = {k: v for k, v in args.items() if k not in keys()}
    for name in theirs:
        if name not in ultralytics_defaults() and name not in _ALSO_THEIRS | _OLD_NAMES:
            raise UsageError(_unknown(name, [*keys(), *ultralytics_defaults()], "key"))
    for name, value in ours.items():
        if verb not in keys()[name].verbs:
            raise UsageError(f"{name} does not act in '{verb}'; it belongs to {', '.join(keys()[name].verbs)}")
        ours[name] = check(name, value)
    return ours, theirs


def resolve(ours: dict[str, Any]) -> dict[str, Any]:
    """Complete the given keys: defaults, then the recipe, then what was given. Every key of ours is in the result."""
    recipe = ours.get("recipe", keys()["recipe"].default)
    return {**defaults(), **load_recipe(recipe), **ours, "recipe": recipe}


def defaults() -> dict[str, Any]:
    """Every key of ours as it is before any recipe."""
    return {k.name: k.default for k in keys().values()}


def load_recipe(name: str) -> dict[str, Any]:
    """The keys that recipe `name` sets, checked like given ones."""
    text = files("yolo_lt.cfg.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return {k: check(k, v) for k, v in yaml.safe_load(text).items()}


_REPEATS = ("rfs", "irfs", "eirfs")
_WEIGHTED = ("cb", "inverse")
_LOSSES = (*_WEIGHTED, "eql", "eqlv2", "efl", "eqfl", "seesaw", "ecm", "loce", "logit_adjusted", "federated")
Others = tuple[tuple[str, tuple], ...]
ACTS_WITH: dict[str, Others] = {  # key: others, of which one must have one of these values, or be on
    "sampler_variant": (("sampler", _REPEATS),),
    "repeat_thr": (("sampler", _REPEATS),),
    "repeat_cap": (("sampler", (*_REPEATS, "class_aware", "inverse")),),
    "rounding": (("sampler", _REPEATS),),
    "eirfs_alpha": (("sampler", ("eirfs",)),),
    "paste_memory": (("tail_paste", ()),),
    "cb_beta": (("cls_loss", ("cb",)), ("box_weight", ("cb",))),
    "inverse_power": (("cls_loss", ("inverse",)), ("box_weight", ("inverse",))),
    "cb_form": (("cls_loss", _WEIGHTED),),
    **dict.fromkeys(("weight_norm", "weight_cap"), (("cls_loss", _WEIGHTED), ("box_weight", _WEIGHTED))),
    "focal_gamma": (("cls_loss", ("cb", "inverse", "efl", "eqfl")),),
    "eql_lambda": (("cls_loss", ("eql",)),),
    **dict.fromkeys(("loss_variant", "eqlv2_gamma", "eqlv2_mu", "eqlv2_alpha"), (("cls_loss", ("eqlv2",)),)),
    "efl_scale": (("cls_loss", ("efl", "eqfl")),),
    **dict.fromkeys(("seesaw_p", "seesaw_q"), (("cls_loss", ("seesaw",)),)),
    **dict.fromkeys(("ecm_background", "ecm_scale"), (("cls_loss", ("ecm",)),)),
    "logit_tau": (("cls_loss", ("logit_adjusted",)),),
    "margin_reference": (("cls_loss", ("logit_adjusted", "ecm")),),
    "loce_momentum": (("cls_loss", ("loce",)),),
    **dict.fromkeys(
        ("federated_classes", "federated_power"), (("cls_loss", ("federated",)), ("unknown_negatives", ("sampled",)))
    ),
    "unknown_negatives": (("federated", ()),),
    "loss_gain": (("cls_loss", _LOSSES),),
    "replay": (("strategy", ("tail", "hard")),),
    **dict.fromkeys(("head_part", "reinit"), (("strategy", ("all", "tail", "hard")),)),
    "mine_every": (("strategy", ("hard",)),),
    **dict.fromkeys(("imbalance", "largest"), (("tail_profile", ("exponential", "pareto")),)),
    "hierarchy": (("protocol", ("openimages",)),),
    "gt": (("detections", ()),),
    **dict.fromkeys(("cache_views", "cache_limit", "cache_dir"), (("feature_cache", (True,)),)),
}


def check_acting(ours: dict[str, Any], lt: dict[str, Any]) -> None:
    """Refuse given keys that would silently do nothing beside the others.

    Args:
        ours: The given yolo-lt keys.
        lt: Every yolo-lt key, as `resolve` returns them.

    Raises:
        UsageError: One of them acts only with another value of another key.
    """
    for name, others in ACTS_WITH.items():
        acts = any(lt[other] in values if values else lt[other] not in (False, "none") for other, values in others)
        off = "none" if keys()[name].default == "none" else "auto"
        if ours.get(name, off) not in ("auto", off) and not acts:
            wanted = [f"{other}={str(v).lower()}" for other, values in others for v in values] or [others[0][0]]
            raise UsageError(f"{name} acts only with {' or '.join(wanted)}")


def command(verb: str, words: Iterable[str] = (), **given: Any) -> str:
    """The command line that does what a call did, quoted for a shell.

    Args:
        verb: The verb.
        words: Words without a key, as compare takes them.
        **given: The given keys; None is left out.
    """
    pairs = [f"{name}={_shown(value)}" for name, value in given.items() if value is not None]
    return " ".join(["yolo-lt", verb, *(shlex.quote(word) for word in (*words, *pairs))])


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def stage_two_defaults() -> dict[str, Any]:
    """Keys, ours and Ultralytics', that finetune-head sets unless they are given (cfg/finetune-head.yaml)."""
    return yaml.safe_load(files("yolo_lt.cfg").joinpath("finetune-head.yaml").read_text(encoding="utf-8"))


def check(name: str, value: Any) -> Any:
    """The value of key `name` in its proper type.

    Raises:
        UsageError: The value is none of the kinds that cfg/default.yaml lists.
    """
    return _convert(keys()[name], value)


def _convert(key: Key, value: Any) -> Any:
    for kind in key.kinds:
        accepted, converted = _match(kind, value)
        if accepted:
            return converted
    choices = difflib.get_close_matches(str(value), key.choices, n=1)
    hint = f"; did you mean {choices[0]}?" if choices else ""
    raise UsageError(f"{key.name}={value}: expected {' | '.join(key.kinds)}{hint}")


def _match(kind: str, value: Any) -> tuple[bool, Any]:
    """Whether the value is of this kind, and the value in its type."""
    if m := _RANGE.match(kind):
        ok = _is_number(value) and (m[1] == "number" or float(value).is_integer()) and _in_range(m, float(value))
        return ok, (int(value) if m[1] == "integer" else float(value)) if ok else None
    if kind == "bool":
        return isinstance(value, bool) or value in (0, 1), bool(value)
    if kind == "two numbers":
        ok = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))
        return ok, list(value) if ok else None
    if kind == "path":
        named = isinstance(value, str) and (Path(value).suffix != "" or len(Path(value).parts) > 1)
        ok = named or isinstance(value, Path) or (isinstance(value, str) and Path(value).is_dir())
        return ok, str(value)
    if kind in ("folder", "text"):
        return isinstance(value, (str, Path)), str(value)
    if kind == "list":  # `a,b`, `["a, b"]`, or one of them
        many = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return value is not None, [word.strip() if isinstance(word, str) else word for word in many]
    literal = "none" if value is None else str(value)  # `sampler=none` reads as None on the command line
    return literal == kind, kind


def _in_range(m: re.Match[str], value: float) -> bool:
    if m[2]:
        return value >= float(m[3]) if m[2] == ">=" else value > float(m[3])
    if m[4]:
        low, high = float(m[5]), float(m[6])
        above = value >= low if m[4] == "[" else value > low
        return above and (value <= high if m[7] == "]" else value < high)
    return value == value  # not NaN


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def merge_cfg_file(args: dict[str, Any]) -> dict[str, Any]:
    """Merge Ultralytics' `cfg=file.yaml` below the other arguments, so that it may hold our keys as well."""
    if not args.get("cfg"):
        return args
    path = Path(str(args["cfg"]))
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise LTError(f"cfg={path} cannot be read as YAML: {e}") from None
    if not isinstance(loaded, dict):
        raise LTError(f"cfg={path}: expected lines of 'key: value'")
    return {**loaded, **{k: v for k, v in args.items() if k != "cfg"}}


def _unknown(name: str, known: Iterable[str], what: str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown {what} '{name}'" + (f"; did you mean '{close[0]}'?" if close else "")
