"""Writes the diagram of imports in CONTRIBUTING.md: `python -m tests.import_diagram`.

The diagram shows the parts of the package. An arrow goes from a part to one that it imports,
unless a longer way along other arrows leads there too.
"""

import re
from pathlib import Path

from tests.test_architecture import RANKS, imports, part_of, read_package

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
BEGIN, END = "<!-- imports: begin -->\n", "<!-- imports: end -->"
SINGLE_FILES = ("errors", "geometry")


def imported_parts() -> dict[str, set[str]]:
    """Return the parts that each part of the package imports, the highest part first."""
    found: dict[str, set[str]] = {part: set() for part in sorted(RANKS, key=RANKS.get)[::-1]}
    del found["__main__"]
    for module, source in read_package().items():
        part = part_of(module)
        for _, origin, name in imports(module, source):
            target = part_of(origin, name) if origin.split(".")[0] == "jawloc" else None
            if part in found and target in found and target != part:
                found[part].add(target)
    return found


def without_shortcuts(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out each arrow whose end can be reached by a longer way (transitive reduction)."""

    def below(part: str) -> set[str]:
        return arrows[part].union(*(below(target) for target in arrows[part]))

    return {
        part: targets - set().union(*(below(target) for target in targets))
        for part, targets in arrows.items()
    }


def diagram() -> str:
    """Return the diagram of the package as it is now, in Markdown."""
    lines = ["```mermaid", "flowchart TD"]
    for part, targets in without_shortcuts(imported_parts()).items():
        lines.append(f'    {part}["{part}{".py" if part in SINGLE_FILES else "/"}"]')
        lines += [f"    {part} --> {target}" for target in sorted(targets)]
    return "\n".join([*lines, "```", ""])


def with_diagram(page: str) -> str:
    """Return a page with the present diagram between its two comments."""
    between = re.escape(BEGIN) + ".*?" + re.escape(END)
    return re.sub(between, lambda _: BEGIN + diagram() + END, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
