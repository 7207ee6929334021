"""Writes the table of values into the chart's README.md: readme.py, or readme.py --check to see that it is written.

Every value of values.yaml has a comment that begins with `# --` just above it, or belongs to a map that has one. Sections have
plain comments.
"""

import json
import re
import sys
from functools import reduce
from pathlib import Path

import yaml

CHART = Path(__file__).parents[1] / "moderato"
BEGIN, END = "<!-- values: written by helm/tools/readme.py -->\n", "<!-- end of values -->"


def values(text):
    """(path, default, meaning) of every value with a comment; fails where one has none."""
    defaults, rows, path, comment = yaml.safe_load(text), {}, (), []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif key := re.match(r"( *)(\w+):(?: |$)", line):
            path = (*path[: len(key[1]) // 2], key[2])
            default = reduce(dict.__getitem__, path, defaults)
            if comment:
                rows[path] = (default, " ".join(comment))
            elif not (isinstance(default, dict) and default) and not any(path[:n] in rows for n in range(len(path))):
                raise SystemExit(f"values.yaml: {'.'.join(path)} has no comment that begins with `# --`")
            comment = []
    return rows


def table(text):
    lines = ["| Value | Default | Meaning |", "|---|---|---|"]
    for path, (default, meaning) in values(text).items():
        lines.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def written(readme, text):
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table(text) + END + rest.split(END)[1]


if __name__ == "__main__":
    target = CHART / "README.md"
    new = written(target.read_text(), (CHART / "values.yaml").read_text())
    if "--check" in sys.argv:
        sys.exit(0 if target.read_text() == new else f"{target} is not what {__file__} writes: run it")
    target.write_text(new)
