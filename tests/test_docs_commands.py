"""Every command in the pages is run, with short settings, or its reason not to is stated."""

import csv
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import mlflow
import pytest
import SimpleITK as sitk
import yaml
from matplotlib.figure import Figure

from docs.commands import blocks, commands
from docs.make_tutorial import named_file, write_scans
from jawloc.config import check_config, load_config
from jawloc.phantom import write_phantoms
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.points.review import Review, time_of_review, write_review
from jawloc.training.network import LabNetwork
from tests.lab import SCAN_SHAPE, TINY_SETTINGS

CHECKOUT = Path(__file__).parents[1]
# In this order: a page may use what an earlier one has made.
FIRST = ["docs/tutorial/index.md", "docs/tutorial/points.md", "README.md", "docs/training.md"]
OTHERS = sorted(path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "docs").rglob("*.md"))
PAGES = [*FIRST, *(page for page in OTHERS if page not in FIRST)]
# The beginning of a command, or with a $ all of it -> why it is not run here.
NOT_RUN = {
    "pip install": "installs; .ci/run does it",
    "pytest": ".ci/run does it",
    "mkdir jaws": "the test's folder is that",
    "cd jaws": "the same",
    "jawloc ui": "a server: tests/reporting/tracking/test_ui_server.py",
    "mlflow models serve": "a server: tests/reporting/tracking/test_serving.py",
    "curl": "asks that server: tests/reporting/tracking/test_serving.py",
    "export": "for servers that are not there",
    "jawloc-train --demo": "tests/workflows/test_demo.py runs it",
    "jawloc-train --model-name my_locator": "the tutorial's first, which takes its place here",
    "jawloc-train --model-name small": "the tutorial's first with other settings",
    "jawloc-tune --trials 30": "the tutorial's with other numbers",
    "jawloc-train --model-name best-curriculum": "the tutorial's tuned with another name",
    "jawloc-train --model-name my_folds --folds": "tests/workflows/test_cross_validate.py",
    "jawloc-train --model-name lab_network": "slow: tests/workflows/test_train.py",
    "jawloc review script_output/locations$": "a window: tests/viewer/test_review_window.py",
    "jawloc dicoms images/ script_output/locations/review.csv": "needs a person's decisions: "
    "tests/scans/points/test_review.py",
    "torchrun": "several processes: tests/training/test_distributed.py",
    "docker": "needs Docker: tests/test_containers.py runs the steps",
    "apptainer": "needs Apptainer: tests/test_containers.py runs the steps",
    "sbatch": "needs Slurm",
    "python experiments/cluster/slurm.py": "needs Slurm",
    "jawloc locate my_locator scans/ --workers": "starts workers: tests/workflows/cluster",
    "jawloc locate my_locator scans/ --scheduler": "needs a scheduler: tests/workflows/cluster",
    "jawloc-tune --trials 100 --storage": "needs PostgreSQL: tests/workflows/tune/test_database.py",
}
PICTURES = [
    "jawloc.workflows.locate_scan.location_picture",
    *(
        f"jawloc.reporting.evaluation_pictures.{name}"
        for name in ("plot_success", "plot_trust", "plot_bias", "location_picture")
    ),
]
# Outputs that each page takes for granted not to be there yet.
BEGUN_ANEW = ("locations",)
PROGRAMS = {"jawloc": [], "jawloc-train": ["train"], "jawloc-tune": ["tune"]}
SHELL = ("ls", "head", "cut", "python")
TINIER_SETTINGS = TINY_SETTINGS | {"presence_classifier": {"steps": 0}}
SHORTER = {"--trials": "2", "--epochs": "2"}
OTHERS_HERE = {"num_epochs=40": "num_epochs=2", "my_locator": "first"}


@pytest.fixture
def project(tmp_path, copy_store, monkeypatch):
    """A folder with the files that the pages' commands name, made small."""
    folder = tmp_path / "jaws"
    folder.mkdir()
    copy_store(folder)
    (folder / "experiments").symlink_to(CHECKOUT / "experiments")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow adds to it
    return folder


@pytest.fixture
def no_pictures_at_all(monkeypatch, no_pictures):
    """Leave out those of evaluations, positions and studies, too: other tests are about them."""
    blank = Figure(figsize=(0.1, 0.1))
    for place in PICTURES:
        monkeypatch.setattr(place, lambda *_, **__: blank)
    monkeypatch.setattr("jawloc.workflows.tune.study_report._write_pictures", lambda *_: [])


def add_other_files(folder: Path) -> None:
    """Make what the pages after the tutorial's scans take for granted."""
    import torch

    write_phantoms(folder / "dicoms" / "new_scans", 1, SCAN_SHAPE, seed=50, progress=False)
    scan = sitk.ReadImage(str(folder / "new" / "fish_32.nrrd"))
    for name in ("scan.tif", "scan.nii.gz", "scans/a.nrrd"):
        (folder / name).parent.mkdir(exist_ok=True)
        sitk.WriteImage(scan, str(folder / name))
    (folder / "list.txt").write_text("scan.tif\n", encoding="utf-8")
    (folder / "points").mkdir()
    header, *rows = (folder / "clicked.csv").read_text(encoding="utf-8").splitlines()
    for row in rows:
        name, _, point = row.partition(",")
        text = f"{header.partition(',')[2]}\n{point}\n"
        (folder / "points" / f"{name}.csv").write_text(text, encoding="utf-8")
    torch.save(LabNetwork(1).state_dict(), folder / "lab.pth")


def shortened(words: list[str]) -> list[str]:
    """Return a command's words with everything in it that takes long made short."""
    short = [OTHERS_HERE.get(word, word) for word in words]
    for option, value in SHORTER.items():
        if option in short:
            short[short.index(option) + 1] = value
    if "--downsampled-size" in short:
        short[short.index("--downsampled-size") + 1] = "32,16,16"
    return short


def decide_for_a_person(words: list[str]) -> None:
    """Write the review.csv that a command names, every position corrected by a voxel."""
    for path in (Path(word) for word in words if word.endswith("/review.csv")):
        table = path.with_name("locations.csv")
        if path.exists() or not table.exists():
            continue
        with table.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["z_voxels"]]
        moved = [
            Review(
                row["scan"],
                row["object"],
                "moved",
                (float(row["z_voxels"]) - 1, float(row["y_voxels"]), float(row["x_voxels"])),
                "Ana",
                time_of_review(),
                row["model"],
                row["path"],
            )
            for row in rows
        ]
        write_review(path, moved)


def run(words: list[str], jawloc) -> str:
    """Run a command; return what went wrong, or nothing."""
    if words[:3] == ["python", "../docs/make_tutorial.py", "scans"]:
        write_scans(Path.cwd(), 3, 1, 1, SCAN_SHAPE)
        add_other_files(Path.cwd())
        return ""
    words = words[: words.index("|")] if "|" in words else words
    if words[0] in SHELL:
        program = [sys.executable if words[0] == "python" else words[0], *words[1:]]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""
    decide_for_a_person(words)
    result = jawloc(*PROGRAMS[words[0]], *shortened(words[1:]))
    return f"{result.output}{result.exception!r}" if result.exit_code else ""


def run_python(text: str, folder: Path) -> str:
    """Run a block of Python, with a run of the store where it says RUN_ID; return what failed."""
    client = mlflow.MlflowClient(tracking_uri(folder))
    experiment = client.get_experiment_by_name("jaw_location")
    found = client.search_runs([experiment.experiment_id], "attributes.run_name = 'first'")
    text = text.replace("RUN_ID", found[0].info.run_id).replace("my_locator", "first")
    try:
        exec(compile(text, "page", "exec"), {})
    except Exception as error:
        return f"{text}{error!r}"
    return ""


def check_settings(words: tuple[str, ...]) -> None:
    """Check the settings of a command, also of one that is not run."""
    given = [value for option, value in pairwise(words) if option == "--set"]
    check_config({}, base=Path(), source="page", overrides=given)


def write_config(path: Path, text: str) -> None:
    """Check the settings of a page, and write tiny ones in their place."""
    path.write_text(text, encoding="utf-8")
    load_config(path)
    path.write_text(yaml.safe_dump({"jaw_loc_config": TINIER_SETTINGS}), encoding="utf-8")


@pytest.mark.slow
def test_every_command_in_the_pages_runs(project, jawloc, no_pictures_at_all):
    done, used, failed = set(), set(), []
    for page in PAGES:
        for folder in BEGUN_ANEW:
            shutil.rmtree(project / "script_output" / folder, ignore_errors=True)
        done.discard("jawloc locate my_locator scan.tif")  # whose outputs those were
        for block in blocks(CHECKOUT / page):
            if (name := named_file(block)) is not None:
                write_config(project / name, block.text)
            elif block.language == "python":
                failed.append(run_python(block.text, project))
            for command in commands(block) if block.language == "bash" else ():
                reasons = {start for start in NOT_RUN if f"{command.line}$".startswith(start)}
                used |= reasons
                check_settings(command.words)
                if not reasons and command.line not in done:
                    done.add(command.line)
                    if problem := run([*command.words], jawloc):
                        failed.append(f"{page}: {command.line}\n{problem}")
        if page == FIRST[0]:
            point_is_the_tables(project)
    assert [problem for problem in failed if problem] == []
    assert used == set(NOT_RUN)
    assert len(done) > 25


def point_is_the_tables(project: Path) -> None:
    """Check that 3D Slicer's file of the tutorial has the voxel that the table has."""
    folder = project / "script_output" / "locations"
    with (folder / "locations.csv").open(encoding="utf-8") as file:
        (row,) = [row for row in csv.DictReader(file) if row["scan"] == "fish_32"]
    text = (folder / "markups" / "fish_32.mrk.json").read_text(encoding="utf-8")
    position = yaml.safe_load(text)["markups"][0]["controlPoints"][0]["position"]
    scan = sitk.ReadImage(str(project / "new" / "fish_32.nrrd"))
    x, y, z = scan.TransformPhysicalPointToContinuousIndex(position)
    table = [float(row[f"{axis}_voxels"]) for axis in "zyx"]
    assert [z, y, x] == pytest.approx(table, abs=1e-3)


def test_commands_are_told_apart(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\na --b c && d   # e\nf 'g h' \\\n  i | j\n```\n\n```text\nk\n```\n",
        encoding="utf-8",
    )
    first, second = blocks(page)
    assert [command.words for command in commands(first)] == [
        ("a", "--b", "c"),
        ("d",),
        ("f", "g h", "i", "|", "j"),
    ]
    assert (second.language, second.text) == ("text", "k\n")


def test_a_block_that_names_a_file_is_that_file(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```yaml\n# userconf.yml\na: 1\n```\n```yaml\na: 1\n```\n", encoding="utf-8")
    assert [named_file(block) for block in blocks(page)] == ["userconf.yml", None]
