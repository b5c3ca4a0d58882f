"""Makes the tutorial's scans, and runs its commands to write their real output into its pages.

    python docs/make_tutorial.py scans          # in an empty folder: the reader's scans
    python docs/make_tutorial.py pages FOLDER   # in a new folder: outputs and pictures

The scans are phantoms of 200x60x60 voxels, a tenth of a real scan along each axis, as a scanner
might leave them: a folder of slices with SkyScan's log for each fish, a TIFF for each mask. In the
pages, a `text` block after a `bash` block is what the commands printed, and a `yaml` block whose
first line is `# name.yml` is that file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from matplotlib import rc_context
from PIL import Image

from jawloc.geometry import Shape
from jawloc.phantom import make_phantom
from jawloc.reporting.figures.style import STYLE, save_figure
from jawloc.scans.scan import Scan

sys.path.insert(0, str(Path(__file__).parents[1]))  # where this is run as a script
from docs import tutorial_pictures
from docs.commands import Block, blocks

TUTORIAL = Path(__file__).parent / "tutorial"
PAGES = ("index.md", "points.md")
IMAGES = TUTORIAL / "images"
SHAPE: Shape = (200, 60, 60)
LABELLED, HELD_OUT, NEW = 24, 8, 2
CLICK_SD_VOXELS = 0.5  # of a hand that clicks
LONGEST_OUTPUT = 40  # lines
LONGEST_SIDE = 1000  # pixels of a picture
LARGEST_BYTES = 190_000
PROGRESS = re.compile(r"\d+%\||^[\w ]+: [\d.]+\w? of [\d.]+\w? .*\d\d:\d\d|, \d\d:\d\d")
OUTPUTS = Path("script_output")
FIRST, TUNED, CLICKED = (OUTPUTS / "jaw_location" / n for n in ("first", "tuned", "clicked"))
EVALUATION, OF_CLICKED = (OUTPUTS / "evaluations" / n for n in ("tuned", "clicked"))
LOCATIONS = OUTPUTS / "locations"
STUDY = OUTPUTS / "tuning" / "curriculum"
SERVER = "jawloc ui"  # runs until it is stopped
PICTURES = {
    "val_heatmap_example.png": FIRST / "val_heatmap_example.png",
    "curriculum.png": FIRST / "curriculum.png",
    "losses.png": FIRST / "losses.png",
    "sigma.png": FIRST / "sigma.png",
    "val_heatmap_pred.png": FIRST / "val_heatmap_pred.png",
    "test_centroid.png": FIRST / "test_centroid.png",
    "test_cropped.png": FIRST / "test_cropped.png",
    "tuned.png": TUNED / "sigma.png",
    "history.png": STUDY / "history.png",
    "contour.png": STUDY / "contour.png",
    "success.png": EVALUATION / "success.png",
    "trust.png": EVALUATION / "trust.png",
    "bias.png": EVALUATION / "bias.png",
    "located.png": LOCATIONS / "pictures" / "fish_32.png",
    "clicked_heatmap_pred.png": CLICKED / "val_heatmap_pred.png",
    "clicked_success.png": OF_CLICKED / "success.png",
}


def write_scans(
    folder: Path,
    labelled: int = LABELLED,
    held_out: int = HELD_OUT,
    new: int = NEW,
    shape_zyx: Shape = SHAPE,
) -> None:
    """Write the tutorial's scans: labelled, held out with labels, and new ones without.

    The first numbers are 0, 24 and 32, however many there are.
    """
    clicked = ["scan,z,y,x"]
    for number in range(labelled):
        scan = make_phantom(number, shape_zyx)
        write_labelled(folder, fish(number), scan)
        hand = np.random.default_rng(number).normal(0, CLICK_SD_VOXELS, 3)
        z, y, x = np.argwhere(scan.mask).mean(0) + hand
        clicked.append(f"{fish(number)},{z:.1f},{y:.1f},{x:.1f}")
    (folder / "clicked.csv").write_text("\n".join(clicked) + "\n", encoding="utf-8")
    for number in range(LABELLED, LABELLED + held_out):
        write_labelled(folder / "held_out", fish(number), make_phantom(number, shape_zyx))
    for number in range(LABELLED + HELD_OUT, LABELLED + HELD_OUT + new):
        path = folder / "new" / f"{fish(number)}.nrrd"
        write_nrrd(path, make_phantom(number, shape_zyx))


def fish(number: int) -> str:
    """Return the name of a fish."""
    return f"fish_{number:02d}"


def write_labelled(folder: Path, name: str, scan: Scan) -> None:
    """Write a scan into `images/` and its mask into `masks/`."""
    write_slices(folder / "images" / name, scan)
    mask = folder / "masks" / f"{name}_mask.tif"
    mask.parent.mkdir(exist_ok=True)
    tifffile.imwrite(mask, scan.mask, compression="zlib", photometric="minisblack")


def write_slices(folder: Path, scan: Scan) -> None:
    """Write a scan as SkyScan's software leaves it: numbered slices and a log."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(scan.image):
        tifffile.imwrite(
            folder / f"{folder.name}_rec{number:08d}.tif", picture, photometric="minisblack"
        )
    assert scan.grid.spacing_mm_zyx is not None
    size = scan.grid.spacing_mm_zyx[0] * 1000
    log = f"[Reconstruction]\nImage Pixel Size (um)={size:.3f}\n"
    (folder / f"{folder.name}_rec.log").write_text(log, encoding="utf-8")


def write_nrrd(path: Path, scan: Scan) -> None:
    """Write a scan with its voxel size and a place in the scanner."""
    path.parent.mkdir(exist_ok=True)
    assert scan.grid.spacing_mm_zyx is not None
    image = sitk.GetImageFromArray(scan.image)
    image.SetSpacing(scan.grid.spacing_mm_zyx[::-1])
    image.SetOrigin((-5.0, 12.5, 40.0))
    sitk.WriteImage(image, str(path))


def named_file(block: Block) -> str | None:
    """Return the name of the file that a block shows, where its first line has it."""
    found = re.match(r"# ([\w.-]+\.yml)", block.text)
    return None if found is None or block.language != "yaml" else found[1]


def run(block: Block, folder: Path) -> str:
    """Run a block in a shell; return what it printed, without progress bars."""
    script = block.text.replace("mkdir jaws && cd jaws\n", "")
    script = re.sub(r"python \S*make_tutorial.py", f"{sys.executable} {__file__}", script)
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(block.text, done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {block.text}")
    lines = [*_plain(done.stdout, folder)]
    if len(lines) > LONGEST_OUTPUT:
        lines = [*lines[: LONGEST_OUTPUT // 2], "...", *lines[-LONGEST_OUTPUT // 2 :]]
    return "\n".join(lines) + "\n"


def _plain(output: str, folder: Path) -> Iterator[str]:
    for line in output.splitlines():
        last = line.rpartition("\r")[2].rstrip()
        if last and not PROGRESS.search(last):
            yield last.replace(f"{folder}/", "")


def make_pages(folder: Path, pages: tuple[str, ...] = PAGES) -> None:
    """Run the pages' commands in a new folder, and write what they print into the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in pages:
        page = TUTORIAL / name
        text, printed = page.read_text(encoding="utf-8"), ""
        longer = 0  # than it was, by the outputs so far
        for block in blocks(page):
            if (file := named_file(block)) is not None:
                (folder / file).write_text(block.text, encoding="utf-8")
            elif block.language == "bash" and not block.text.startswith(SERVER):
                printed = run(block, folder)
            elif block.language == "text" and printed:
                text = text[: block.start + longer] + printed + text[block.end + longer :]
                longer += len(printed) - len(block.text)
                page.write_text(text, encoding="utf-8")
                printed = ""
    IMAGES.mkdir(exist_ok=True)
    draw_files(folder)
    for picture, path in PICTURES.items():
        if (folder / path).exists():
            copy_picture(folder / path, IMAGES / picture)


def draw_files(folder: Path) -> None:
    """Draw what goes in and what comes out, from the files."""
    new = LOCATIONS / "markups" / "fish_32.mrk.json", LOCATIONS / "imgs" / "fish_32.nrrd"
    figures = {
        "files": lambda: tutorial_pictures.draw_files(folder),
        "labelled": lambda: tutorial_pictures.draw_labelled(folder / "dicoms/labelled/fish_00.dcm"),
        "split": lambda: tutorial_pictures.draw_split(folder),
        "reopened": lambda: tutorial_pictures.draw_reopened(
            folder / "new" / "fish_32.nrrd", *(folder / path for path in new)
        ),
        "click": lambda: tutorial_pictures.draw_click(folder),
        "clicked": lambda: tutorial_pictures.draw_clicked(folder / "dicoms/clicked"),
    }
    for name, draw in figures.items():
        with rc_context(STYLE):
            save_figure(draw(), folder / f"{name}.png")
        copy_picture(folder / f"{name}.png", IMAGES / f"{name}.png")


def copy_picture(source: Path, target: Path) -> None:
    """Copy a picture for a page: not larger than the page shows it, with a palette."""
    with Image.open(source) as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    way = Image.Quantize.MAXCOVERAGE  # which keeps the colours of small parts
    for colours in (256, 128, 64, 32):  # noise makes a file large
        few = picture.quantize(colours, way, kmeans=1, dither=Image.Dither.NONE)
        few.save(target, optimize=True)
        if target.stat().st_size < LARGEST_BYTES:
            break


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["scans"]:
            write_scans(Path.cwd())
        case ["pages", folder, *names]:
            make_pages(Path(folder).resolve(), (*names,) or PAGES)
        case _:
            raise SystemExit(__doc__)
