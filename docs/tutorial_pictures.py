"""Draws the tutorial's pictures of files: what goes into jawloc, and what comes out of it.

Each is drawn from the files that the tutorial's commands read or wrote, opened with readers that
other programs use, too. The pictures of trainings, studies and evaluations are jawloc's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
import tifffile
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jawloc.config import load_config
from jawloc.reporting.figures.slices import plot_slices
from jawloc.reporting.figures.style import Colour, blank_chart
from jawloc.scans.reading import open_scan, read_scan
from jawloc.training.splits import choose_split

SLICES = 6  # of a scan, in the picture of its files
BRIGHTEST = 0.993  # the share of voxels that the 3-D view leaves out
FROM_Z = 60  # where the pictures of clicked points begin: below are the tails
USES = {  # of a fish -> its colour in the picture of the split, and the text's
    "train": (Colour.BLUE, "white"),
    "validation": (Colour.ORANGE, "black"),
    "test": (Colour.GREEN, "white"),
    "kept apart": (Colour.SKY, "black"),
    "new": ("0.85", "black"),
}


def draw_files(folder: Path) -> Figure:
    """Show TIFF slices of the first fish's head, above the same slices of its mask's file."""
    files = sorted((folder / "images" / "fish_00").glob("*.tif"))
    mask = tifffile.imread(folder / "masks" / "fish_00_mask.tif")
    labelled = np.flatnonzero(mask.any((1, 2)))
    shown = np.linspace(labelled[0] - 1, labelled[-1] + 1, SLICES).round()
    figure = blank_chart(5, 12)
    panels = figure.subplots(2, SLICES)
    images = {int(number): tifffile.imread(files[int(number)]) for number in shown}
    limits = np.percentile(np.stack([*images.values()]), (1, 99.7))
    for column, (number, image) in enumerate(images.items()):
        above, below = panels[:, column]
        above.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
        above.set_title(f"...{files[number].name[-12:]}", size=11)
        below.imshow(mask[number] > 0, cmap="gray", vmin=0, vmax=1)
        below.set_title(f"slice {number}", size=11)
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
    panels[0, 0].set_ylabel("images/fish_00/\n(a file for each slice)")
    panels[1, 0].set_ylabel("masks/fish_00_mask.tif\n(one file)")
    return figure


def draw_labelled(path: Path) -> Figure:
    """Show what a labelled DICOM holds, with the centroid of its mask."""
    scan = read_scan(path)
    assert scan.mask is not None
    centre = np.argwhere(scan.mask).mean(0)
    megabytes, frames = path.stat().st_size / 1e6, pydicom.dcmread(path).NumberOfFrames
    return plot_slices(
        scan.image,
        centre=centre,
        title=f"Image and mask of {path.name}\none file, {frames} frames, {megabytes:.1f} MB",
        points={"centroid of the mask": centre},
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
        mask=scan.mask,
    )


def draw_split(folder: Path) -> Figure:
    """Show what each fish is for, by the settings."""
    config = load_config(folder / "userconf.yml")
    split = choose_split(_names(folder / "dicoms" / "labelled", ".dcm"), config.split)
    uses = {
        "train": split.train_ids,
        "validation": split.val_ids,
        "test": split.test_ids,
        "kept apart": _names(folder / "held_out" / "masks", "_mask.tif"),
        "new": _names(folder / "new", ".nrrd"),
    }
    across = 14
    lines = sum(-(-len(ids) // across) for ids in uses.values())
    figure = Figure(figsize=(12, 0.55 * lines), dpi=100)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    line = 0
    for use, ids in uses.items():
        colour, letters = USES[use]
        axes.text(-0.15, line + 0.5, f"{use}: {len(ids)}", ha="right", va="center", size=13)
        for number, name in enumerate(ids):
            x, y = number % across, line + number // across
            box: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "linewidth": 3}
            axes.add_patch(Rectangle((x, y), 1, 1, **box))
            text = name.removeprefix("fish_")
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=letters, size=12)
        line += -(-len(ids) // across)
    axes.set(xlim=(-2.6, across), ylim=(lines, 0))
    axes.set_axis_off()
    return figure


def _names(folder: Path, ending: str) -> list[str]:
    return sorted(path.name.removesuffix(ending) for path in folder.iterdir())


def draw_click(folder: Path) -> Figure:
    """Show the first fish's click, beside the centroid of the mask that this page does not use."""
    scan = read_scan(folder / "images" / "fish_00")
    mask = tifffile.imread(folder / "masks" / "fish_00_mask.tif")
    click = pd.read_csv(folder / "clicked.csv").set_index("scan").loc["fish_00", ["z", "y", "x"]]
    return plot_slices(
        scan.image,
        centre=click.to_numpy(float),
        title="A click, and what a mask would have said\nfish_00",
        points={
            "clicked": click.to_numpy(float),
            "centroid of the mask": np.argwhere(mask).mean(0),
        },
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
    )


def draw_clicked(folder: Path) -> Figure:
    """Show the point in each labelled DICOM that has one, on the scan's maximum along y."""
    paths = sorted(folder.glob("*.dcm"))
    figure = blank_chart(6.2, 12)
    figure.suptitle("The point in each labelled DICOM, on the scan from the front")
    for axes, path in zip(figure.subplots(2, len(paths) // 2).flat, paths, strict=False):
        scan = open_scan(path)
        (point,) = scan.points
        front = scan.read_grey_values(0, scan.grid.shape_zyx[0]).max(axis=1)
        limits = np.percentile(front, (1, 99.7))
        axes.imshow(front, cmap="gray", origin="lower", vmin=limits[0], vmax=limits[1])
        z, _, x = point.voxels_zyx
        axes.plot(x, z, "+", color=Colour.YELLOW, markersize=13, markeredgewidth=2)
        axes.set_title(path.stem, size=10)
        axes.set(xticks=[], yticks=[], ylim=(FROM_Z, len(front)))
    return figure


def draw_reopened(scan: Path, markup: Path, crop: Path) -> Figure:
    """Show scan, point and crop where their files say that they lie, in mm (LPS)."""
    image, cropped = sitk.ReadImage(str(scan)), sitk.ReadImage(str(crop))
    (point,) = json.loads(markup.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    figure = blank_chart(7, 12)
    grid = figure.add_gridspec(1, 3, width_ratios=(1.5, 1, 1))
    figure.suptitle(f"{scan.name}, {markup.name} and imgs/{crop.name}, in mm (LPS)", size=13)
    solid = figure.add_subplot(grid[0], projection="3d")
    _draw_3d(solid, image, cropped, point["position"])
    for number, (title, axis) in enumerate({"from the front": 1, "from the side": 0}.items(), 1):
        _draw_side(figure.add_subplot(grid[number]), image, cropped, point["position"], axis, title)
    return figure


def _draw_3d(axes: Any, image: sitk.Image, cropped: sitk.Image, point: list[float]) -> None:
    """Draw the brightest voxels, the bones, with the crop's box and the point."""
    voxels = sitk.GetArrayFromImage(image)
    bones = np.argwhere(voxels > np.quantile(voxels, BRIGHTEST))
    places = np.array([image.TransformIndexToPhysicalPoint(v[::-1].tolist()) for v in bones])
    style: dict[str, Any] = {
        "s": 5,
        "c": places[:, 1],
        "cmap": "bone",
        "vmax": places[:, 1].max() + 3,
    }
    axes.scatter(*places.T, alpha=1, linewidths=0, **style)
    low, high = _extent(cropped)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    for one in corners:
        for other in corners:
            if (other - one).sum() == 1 == np.abs(other - one).sum():
                edge = low + np.stack([one, other]) * (high - low)
                axes.plot(*edge.T, color=Colour.VERMILION, linewidth=2)
    axes.plot(*([v] for v in point), "o", color=Colour.SKY, markersize=11, zorder=10)
    axes.set_title("bones, crop (box) and point")
    axes.set_box_aspect(np.subtract(*_extent(image)[::-1]), zoom=0.95)
    axes.locator_params(axis="x", nbins=3)
    axes.locator_params(axis="y", nbins=3)
    axes.view_init(elev=12, azim=-60)


def _draw_side(
    axes: Axes,
    image: sitk.Image,
    cropped: sitk.Image,
    point: list[float],
    axis: int,
    title: str,
) -> None:
    """Draw the scan's maximum along an axis (0 x, 1 y), the crop's own over it, and the point."""
    across = 1 - axis
    whole = sitk.GetArrayFromImage(image)
    limits: Mapping[str, float] = dict(
        zip(("vmin", "vmax"), np.percentile(whole, (1, 99.9)), strict=True)
    )
    for part, colours in ((image, "gray"), (cropped, "inferno")):
        picture = sitk.GetArrayFromImage(part).max(axis=2 - axis)
        low, high = _extent(part)
        extent = (low[across], high[across], low[2], high[2])
        axes.imshow(picture, cmap=colours, origin="lower", extent=extent, **limits)
        if part is cropped:
            size = (high - low)[[across, 2]]
            frame: dict[str, Any] = {"fill": False, "edgecolor": Colour.VERMILION, "linewidth": 2}
            axes.add_patch(Rectangle((low[across], low[2]), *size, **frame))
    style: dict[str, Any] = {"color": Colour.SKY, "markersize": 16, "markeredgewidth": 2.5}
    axes.plot(point[across], point[2], "+", **style)
    low, high = _extent(image)
    axes.set(xlim=(low[across], high[across]), ylim=(low[2], high[2]), title=title)
    axes.set(xlabel=f"{'LP'[across]} (mm)", ylabel="S (mm)")


def _extent(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return where an upright image begins and ends, (x, y, z) in mm."""
    ends = ([-0.5] * 3, [size - 0.5 for size in image.GetSize()])
    low, high = (np.array(image.TransformContinuousIndexToPhysicalPoint(end)) for end in ends)
    return low, high
