"""The project's pages: diagrams, links, paths and names in them exist in the code as it is now."""

import re
from pathlib import Path

import pytest
import yaml

from jawloc.config import load_config
from tests.import_diagram import BEGIN, END, PAGE, imported_parts, with_diagram, without_shortcuts
from tests.test_architecture import RANKS

CHECKOUT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for folder in (".", "experiments", "experiments/tune", "mlruns", "tests")
    for path in (CHECKOUT / folder).glob("*.md")
)


def read(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


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


def test_the_readmes_folder_picture_is_the_package():
    picture = read("README.md").split("```\njawloc/\n")[1].split("```")[0]
    inside, _, _ = picture.partition("experiments/")
    parts = set(re.findall(r"^  ([a-z_]+)(?:/|\.py)  ", inside, flags=re.MULTILINE))
    assert parts == set(RANKS) - {"__main__", "errors"}
    for name in re.findall(r"[a-z_]+(?:\.py|/)", inside):
        found = list((CHECKOUT / "jawloc").rglob(name.rstrip("/")))
        assert found, name


def documented_settings() -> dict[str, str | None]:
    """Return the keys of the README's settings table with their defaults, where it has a value."""
    found: dict[str, str | None] = {}
    table = read("README.md").split("\n## Settings\n")[1].split("\n## ")[0]
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        key_cell, default_cell, meaning = line.strip("| ").split(" | ", 2)
        keys, defaults = (re.findall(r"`([^`]+)`", cell) for cell in (key_cell, default_cell))
        section = "".join(keys[0].rpartition(".")[:2])
        keys = [key if key.startswith(section) else section + key for key in keys]
        defaults = defaults * len(keys) if len(defaults) == 1 else defaults or [None] * len(keys)
        found |= dict(zip(keys, defaults, strict=True))
        # settings of a setting: `warmup_epochs` (2)
        found |= dict(re.findall(r"`([a-z_]+)` \(([\d.]+)", meaning))
    return found


def test_the_readmes_settings_table_is_complete_and_has_the_defaults(tmp_path):
    (tmp_path / "userconf.yml").write_text("jaw_loc_config: {dicom_dirs: [dicoms]}")
    params = load_config(tmp_path / "userconf.yml").as_params()
    documented = documented_settings()
    assert {key for key in documented if not key.startswith("objects.")} == {
        key for key in params if not key.startswith("objects.")
    }
    without_value = {key for key, default in documented.items() if default in (None, "auto")}
    for key, default in documented.items():
        if key in without_value or key in ("cache_dir", "objects"):
            continue  # decided when it is used, or relative to the config
        assert yaml.safe_load(default) == params[key], key
    assert without_value == {
        *("dicom_dirs", "specimen_pattern", "device"),
        *(f"network.{name}" for name in ("stride", "coarse", "window")),
        *(f"curriculum.{name}" for name in ("coarse_initial_sigma", "coarse_minimum_sigma")),
        *("curriculum.fine_initial_sigma", "mask_supervision"),
    }


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
        assert Path(path).name not in read("experiments/log.md")
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
