"""Print the README's table of yolo-lt keys from cfg/default.yaml; a test keeps the two equal."""

from __future__ import annotations

from yolo_lt import config


def table() -> str:
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for key in config.keys().values():
        cells = (f"`{key.name}`", f"`{key.shown}`", ", ".join(key.kinds), key.help.replace("|", "\\|"))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
