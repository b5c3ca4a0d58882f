"""Writes the tables of settings.md from the config classes: `python -m docs.generate`.

A setting's default and allowed values are those of its field, its meaning is the comment at the
field: the lines above it and the rest of its own line. A test fails when the page is out of date.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from jawloc.config.keys import ADAPTER, FLAT, KEYS, SECTION, Sections
from jawloc.workflows.tune.searchable_settings import TAKES_EFFECT

PAGE = Path(__file__).parent / "settings.md"
MARK = re.compile(r"<!-- settings: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
# Defaults that are long, or that are decided when a run begins.
SHOWN = {"specimen_pattern": "sides, letters, repeats", "dicom_dirs": "none"}
HEAD = "| Key | Default | Allowed | Meaning | Searched |\n|---|---|---|---|---|"


def comments_of(config_class: type) -> dict[str, str]:
    """Return the comment at each field of a config class, in one line."""
    source = textwrap.dedent(inspect.getsource(config_class))
    lines = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    alone = {n for n in lines if source.splitlines()[n - 1].lstrip().startswith("#")}
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "ClassVar" not in ast.unparse(node.annotation)
        ):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            own = [lines[n] for n in range(first, (node.end_lineno or first) + 1) if n in lines]
            found[node.target.id] = " ".join(own)
    return found


def allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return which values a JSON schema allows, in words."""
    if "$ref" in schema:
        return allowed(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(allowed(part, definitions) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        parts = schema.get("prefixItems")
        inner = allowed(parts[0] if parts else schema.get("items", {}), definitions)
        return f"{len(parts)} of: {inner}" if parts else f"list of: {inner}"
    if kind == "object":
        return "names with values"
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "null":
        return "`null`"
    return {"integer": "whole number", "number": "number"}.get(str(kind), "text") + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    return "".join(f" {word} {schema[key]:.12g}" for key, word in words.items() if key in schema)


def rows(section: str) -> Iterator[str]:
    """Yield a row of the table for each setting of a section."""
    schema = ADAPTER.json_schema(by_alias=True)
    definitions = schema["$defs"]
    (config_class,) = (
        type(getattr(Sections(), field.name)) for field in fields(Sections) if field.name == section
    )
    properties = definitions[config_class.__name__]["properties"]
    defaults = ADAPTER.dump_python(Sections(), mode="json", by_alias=True)[section]
    comments = dict(zip(properties, comments_of(config_class).values(), strict=True))
    for key, (own, name) in KEYS.items():
        if own == section:
            default = SHOWN.get(key, f"`{_plain(defaults[name])}`")
            meaning = comments[name]
            cells = (
                f"`{key}`",
                default,
                allowed(properties[name], definitions),
                f"{meaning[:1].upper()}{meaning[1:].rstrip('.')}.",
                "yes" if key in TAKES_EFFECT else "",
            )
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def with_tables(page: str) -> str:
    """Return a page with the present tables between their comments."""

    def table(found: re.Match[str]) -> str:
        lines = [f"<!-- settings: {found[1]} -->", "", HEAD, *rows(found[1]), "", "<!-- end -->"]
        return "\n".join(lines)

    return MARK.sub(table, page)


def sections() -> tuple[str, ...]:
    """Return the name of every section, in the order of the config file."""
    return (*FLAT, *(field.name for field in fields(Sections) if field.name not in FLAT))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.name}: the tables of {SECTION} are up to date")
