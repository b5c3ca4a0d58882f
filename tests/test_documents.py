"""The project's pages: diagrams, links, paths and names in them exist in the code as it is now."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs import generate
from docs.commands import blocks
from jawloc.config.keys import KEYS
from tests.import_diagram import BEGIN, END, PAGE, imported_parts, with_diagram, without_shortcuts
from tests.test_architecture import RANKS

CHECKOUT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for folder in (".", "docs/**", "experiments/**", "mlruns", "tests")
    for path in CHECKOUT.glob(f"{folder}/*.md")
)


def read(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def texts_in_the_code() -> Iterator[str]:
    """Yield every text of the package, with `{}` in place of what is filled in."""
    for path in (CHECKOUT / "jawloc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings get on a code host."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_the_diagram_of_imports_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_diagram(page) == page, "run: python -m tests.import_diagram"


def test_the_diagram_shows_every_part_and_leads_to_each_import():
    every = imported_parts()
    shown = without_shortcuts(every)
    assert set(shown) == set(RANKS) - {"__main__"}

    def reached(part: str) -> set[str]:
        return shown[part].union(*(reached(target) for target in shown[part]))

    assert {part: targets - reached(part) for part, targets in every.items()} == {
        part: set() for part in every
    }


def test_an_arrow_that_follows_from_others_is_left_out():
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert without_shortcuts(arrows) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        path = (CHECKOUT / page).parent / place if place else CHECKOUT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def test_paths_and_names_in_contributing_exist():
    text = read("CONTRIBUTING.md")
    paths = set(re.findall(r"`((?:jawloc|tests|experiments|\.ci)/[\w./-]+)`", text))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (CHECKOUT / path).exists()] == []
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in (CHECKOUT / "jawloc").rglob("*.py")
    )
    for name in re.findall(r"`([A-Za-z_]+)`", text):
        assert re.search(rf"\b{name}\b", source), name


def test_the_folder_picture_is_the_package():
    picture = read("docs/method.md").split("```\njawloc/\n")[1].split("```")[0]
    inside, _, _ = picture.partition("experiments/")
    parts = set(re.findall(r"^  ([a-z_]+)(?:/|\.py)  ", inside, flags=re.MULTILINE))
    assert parts == set(RANKS) - {"__main__", "errors"}
    for name in re.findall(r"[a-z_]+(?:\.py|/)", inside):
        found = list((CHECKOUT / "jawloc").rglob(name.rstrip("/")))
        assert found, name


def test_the_readme_is_a_screen_and_a_half():
    assert len(read("README.md").splitlines()) <= 90
    assert read("README.md").count("![") == 1


def test_the_tables_of_settings_are_up_to_date():
    page = read("docs/settings.md")
    assert generate.with_tables(page) == page, "run: python -m docs.generate"


def test_the_tables_of_settings_have_every_setting_with_a_meaning():
    page = read("docs/settings.md")
    assert [*re.findall(r"<!-- settings: (\w+) -->", page)] == [*generate.sections()]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (.+?) \| (.*?) \|", page, flags=re.MULTILINE)
    assert sorted(key for key, *_ in rows) == sorted(KEYS)
    assert [key for key, default, allowed, meaning in rows if len(meaning) < 10] == []


def test_a_settings_meaning_is_the_comment_at_its_field():
    class Settings:
        # lines above it
        # and these
        first: int = 1  # with the rest of its line

        second: int = 2  # its own

    assert generate.comments_of(Settings) == {
        "first": "lines above it and these with the rest of its line",
        "second": "its own",
    }


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "whole number from 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number above 0 to 1"),
        ({"anyOf": [{"const": "auto"}, {"type": "boolean"}]}, "`auto` or `true`, `false`"),
        ({"$ref": "#/$defs/Three"}, "3 of: number"),
    ],
)
def test_what_a_setting_allows_is_said_in_words(schema, words):
    three = {"type": "array", "prefixItems": [{"type": "number"}] * 3}
    assert generate.allowed(schema, {"Three": three}) == words


def test_every_dependency_has_its_reason():
    project = tomllib.loads(read("pyproject.toml"))
    extras = project["project"]["optional-dependencies"]
    assert extras["docs"] == project["dependency-groups"]["docs"]
    assert extras["test"] == project["dependency-groups"]["test"]
    needed = [*project["project"]["dependencies"], *extras["docs"], *extras["test"]]
    page = read("docs/dependencies.md")
    names = {re.match(r"[\w-]+", line)[0] for line in needed}
    assert [name for name in sorted(names) if not re.search(rf"\| .*\b{name}\b.* \|", page)] == []


def test_every_page_is_in_the_contents():
    config = yaml.load(read("mkdocs.yml"), yaml.BaseLoader)  # which leaves Python's tags alone
    listed = set(re.findall(r"'([\w/.-]+\.md)'", str(config["nav"])))
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert len(pages) > 20
    assert pages - listed == set()
    assert [page for page in listed - pages if not (CHECKOUT / page).exists()] == []


def test_messages_in_troubleshooting_are_jawlocs():
    symptoms = re.findall(r"^\| (.+?) \|", read("docs/troubleshooting.md"), flags=re.MULTILINE)
    messages = [quoted for cell in symptoms for quoted in re.findall(r"`([^`]+ [^`]+)`", cell)]
    assert len(messages) > 15
    texts = [*texts_in_the_code()]

    def is_said(message: str) -> bool:
        pattern = ".*".join(map(re.escape, message.split("...")))
        return any(re.search(pattern, text, flags=re.DOTALL) for text in texts)

    assert [message for message in messages if not is_said(message)] == []


def test_pictures_of_the_pages_are_small_and_used():
    pictures = [*(CHECKOUT / "docs").rglob("*.png")]
    assert len(pictures) > 10
    pages = "".join(read(page) for page in PAGES if page.startswith("docs/"))
    for picture in pictures:
        assert picture.stat().st_size < 200_000, picture
        assert f"images/{picture.name})" in pages, picture


def test_the_tutorials_outputs_are_there():
    """docs/make_tutorial.py writes them from what the commands print."""
    for page in ("index.md", "points.md"):
        texts = [b.text for b in blocks(CHECKOUT / "docs/tutorial" / page) if b.language == "text"]
        assert texts
        assert all(text.strip() for text in texts)


EXPERIMENTS = sorted(
    path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "experiments").rglob("*.yml")
)


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_an_experiment_begins_with_its_command_its_duration_and_a_figure_of_the_log(path):
    assert isinstance(yaml.safe_load(read(path)), dict)
    head = re.match(r"(?:#.*\n)+", read(path))
    assert head is not None
    lines = [line.removeprefix("#").strip() for line in head[0].splitlines()]
    assert any(path in line and re.match(r"(?:jawloc|python) ?", line) for line in lines) or (
        path.endswith("phantoms.yml") and any("phantoms.py" in line for line in lines)
    )
    assert sum(line.startswith("Takes: ") for line in lines) == 1
    text = " ".join(lines)
    expected = text.split("Expect: ")[1]
    if expected.startswith("nothing yet"):
        assert not re.search(rf"(?<!\w){re.escape(Path(path).name)}", read("experiments/log.md"))
        return
    figures, date = re.match(r"(.*?)\(log of (\d{4}-\d\d-\d\d)\)", expected).groups()
    entries = re.split(r"\n## ", read("experiments/log.md"))
    of_the_day = " ".join(entry for entry in entries if entry.startswith(date))
    numbers = re.findall(r"\d+\.\d+", figures)
    assert numbers
    assert [number for number in numbers if number not in of_the_day] == []


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_the_index_of_experiments_has_every_file(path):
    assert f"]({path.removeprefix('experiments/')})" in read("experiments/README.md")
