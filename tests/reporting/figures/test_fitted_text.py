"""No text of a picture is cut, whatever its names and the scan's proportions."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop import crop_box_around
from jawloc.inference.locator import Localisation
from jawloc.reporting.figures.fitted_text import fit_label, fit_title, inches, wrapped
from jawloc.reporting.figures.location import location_picture
from jawloc.reporting.figures.slices import plot_slices
from jawloc.reporting.figures.target_strip import Strip, plot_target_strips

LONG = "2023-11-04_zebrafish_sp7-mutant_clutch_B_individual_0031_left_rescan_after_fixation_21um"
OBJECT = "branchial_arch_anterior_left_of_the_second_pair"
REASON = "the heatmap is wider than in 99.5 % of held-out scans; the voxel size differs from all"
SHAPES = [(128, 16, 16), (8, 75, 75), (24, 12, 20)]


def test_lines_are_no_wider_than_the_room_and_lose_nothing():
    text = f"jaw in {LONG} (not found: {REASON})"
    lines = wrapped(text, 5.0)
    assert max(map(inches, lines)) <= 5.0
    assert " ".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped("short", 5.0) == ["short"]
    assert max(inches(part) for part in wrapped("W" * 300, 3.0)) <= 3.0
    title = fit_title([text, "second"])
    assert [line.bold for line in title] == [True] * (len(title) - 1) + [False]


def test_a_long_label_has_two_lines_and_keeps_its_numbers():
    label = f"predicted centre of {OBJECT}: 1.0, 2.0, 3.0 (z, y, x)"
    assert fit_label(label, 20.0) == label
    name, numbers = fit_label(label, 3.0).splitlines()
    assert numbers == "1.0, 2.0, 3.0 (z, y, x)"
    assert "…" in name
    assert inches(name) <= 3.0


def cut_texts(figure) -> list[str]:
    """Return the texts, and the axes with their numbers, that are not wholly inside a figure."""
    figure.draw_without_rendering()
    columns, rows = figure.get_size_inches() * figure.dpi
    boxes = {text.get_text(): text.get_window_extent() for text in figure.texts}
    for number, axes in enumerate(figure.axes):
        named = [axes.title, *axes.texts, *(axes.get_legend() or Legendless).get_texts()]
        boxes |= {text.get_text(): text.get_window_extent() for text in named if text.get_text()}
        if axes.axison:
            both = ((axis, axis.get_tightbbox()) for axis in (axes.xaxis, axes.yaxis))
            boxes |= {f"{axis} {number}": box for axis, box in both if box is not None}
    return [
        text
        for text, box in boxes.items()
        if box.x0 < -1 or box.x1 > columns + 1 or box.y0 < -1 or box.y1 > rows + 1
    ]


class Legendless:
    """In place of a legend that is not there."""

    get_texts = staticmethod(list)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_picture_of_a_position_cuts_no_text(shape):
    image = np.random.default_rng(0).integers(0, 99, shape).astype(np.uint16)
    full = Grid(tuple(4 * n for n in shape), (0.02, 0.02, 0.02))
    point = tuple(2.0 * n for n in shape)
    window = crop_box_around(point, (40, 40, 40), full.shape_zyx)
    more = {"radius_voxels": 9.0, "confidence": 0.9, "status": "not found", "reason": REASON}
    found = Localisation(LONG, OBJECT, point, point, 3.0, **more)
    crop = np.zeros(window.size_zyx, np.uint16)
    assert cut_texts(location_picture(found, full, image, crop, window)) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_slices_cut_no_text_and_the_legend_covers_no_panel(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    centre = np.array(shape) / 2
    kinds = ("true", "predicted")
    figure = plot_slices(
        image,
        centre=centre,
        points={f"{kind} centre of {OBJECT}": centre for kind in kinds},
        heatmap=np.abs(image),
        mask=(image > 2).astype(np.uint8),
        mask_label=f"{OBJECT} mask",
        title=f"Validation: predicted heatmap\nscan {LONG}, sigma 1.50 voxels, error 2.31 voxels",
    )
    assert cut_texts(figure) == []
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    box = legend.get_window_extent()
    for axes in figure.axes[:3]:
        panel = axes.get_window_extent()
        assert not box.overlaps(panel)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_strip_of_targets_shows_first_and_last_sigma_of_each_stage_and_cuts_no_text(shape):
    image, centre = np.zeros(shape, np.float32), np.array(shape) // 2
    rendered = []

    def render(sigma):
        rendered.append(sigma)
        distance = ((np.indices(shape) - centre[:, None, None, None]) ** 2).sum(0)
        return np.exp(-0.5 * distance / sigma**2)

    many = [(4 * n + 1, 8 * 0.9**n) for n in range(20)]
    strips = [Strip("coarse", 1, many[:2], render), Strip("fine", 1, many, render)]
    figure = plot_target_strips(image, centre, strips, title=f"Target of the {OBJECT}\nscan {LONG}")
    assert cut_texts(figure) == []
    titles = [axes.get_title().splitlines() for axes in figure.axes]
    assert titles[:2] == [["epoch 1", "σ 8.00"], ["epoch 5", "σ 7.20"]]
    assert titles[2] == ["epoch 1", "σ 8.00"]
    assert titles[-1] == ["epoch 77", f"σ {8 * 0.9**19:.2f}"]
    assert len(titles) == 2 + 9
    assert rendered[-1] == many[-1][1]
