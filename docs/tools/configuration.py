"""Writes docs/configuration.md out of schemas/config.v1.json: configuration.py, or configuration.py --check to see that it is written."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "schemas/config.v1.json"
PAGE = ROOT / "docs/configuration.md"
HEAD = """# Configuration

Written by `docs/tools/configuration.py` out of the [schema](../schemas/config.v1.json), which `moderato schema config` prints.

Layers, later ones win: the YAML file of `-c`; the environment, where `kafka.topics.posts` is `MODERATO__KAFKA__TOPICS__POSTS`; and
`--set kafka.topics.posts=posts`. A key that is not named here ends the start. `moderato check` tells every problem at once. Durations are
written `200ms`, `10s`, `5m`, `7d`. `none`: not set.
"""


def leaves(node: dict, path: str = "") -> dict[str, dict]:
    """Key to schema, for every key that holds a value and not more keys."""
    if "properties" not in node:
        return {path: node}
    return {key: leaf for name, inner in node["properties"].items() for key, leaf in leaves(inner, f"{path}.{name}".strip(".")).items()}


def kind(node: dict) -> str:
    if "oneOf" in node:
        return " or ".join(f"`{choice['const']}`" for choice in node["oneOf"])
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    kinds = [one for one in kinds if one != "null"]
    if "pattern" in node:  # A number, or one word.
        kinds = [f"`{node['pattern'].strip('^$')}`" if one == "string" else one for one in kinds]
    if kinds == ["object"]:
        kinds = ["map"]
    if kinds == ["string"] and re.fullmatch(r"\d+(ms|s|m|h|d)", node["default"] or ""):
        kinds = ["duration"]
    return " or ".join(kinds)


def default(node: dict) -> str:
    value = node["default"]
    return "none" if value in (None, "") else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def meaning(node: dict) -> str:
    choices = [f"`{choice['const']}`: {choice['description']}" for choice in node.get("oneOf", []) if "description" in choice]
    # What the description of the key says of a choice is not said twice.
    choices = [choice for choice in choices if choice.split(":")[0] + ":" not in node["description"]]
    return " ".join(" ".join([node["description"], *choices]).split()).replace("|", "\\|")


def page(schema: dict) -> str:
    out = [HEAD]
    single = {name: node for name, node in schema["properties"].items() if "properties" not in node}
    sections = {name: node for name, node in schema["properties"].items() if "properties" in node}
    for name, node in [("", {"properties": single}), *sections.items()]:
        out += [f"\n## `{name}`\n\n{meaning(node)}\n"] if name else []
        out += ["\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n"]
        out += [f"| `{key}` | {kind(leaf)} | {default(leaf)} | {meaning(leaf)} |\n" for key, leaf in leaves(node, name).items()]
    return "".join(out)


if __name__ == "__main__":
    text = page(json.loads(SCHEMA.read_text()))
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == text else f"{PAGE} is not what {__file__} writes: run it")
    PAGE.write_text(text)
