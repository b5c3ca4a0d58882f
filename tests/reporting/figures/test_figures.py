"""What the pictures show, read back from axes and from rendered pixels."""

from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.reporting.figures.curves import plot_losses, plot_metrics, plot_sigma, spread_out
from jawloc.reporting.figures.slices import plot_crop, plot_slices
from jawloc.reporting.figures.style import figure_to_array, save_figure
from jawloc.scans.orthogonal_slices import orthogonal_slices
from jawloc.training.records import EpochRecord, StageRecord

SHAPE = (40, 16, 20)
VIEWS = {"axial": (1, 2), "coronal": (0, 2), "sagittal": (0, 1)}  # rows, columns


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)


def panels(figure):
    return {axes.get_title().split(",")[0]: axes for axes in figure.axes if axes.get_title()}


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def legend(figure):
    """Return a figure's labels, those in two lines as if they were in one."""
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    return [t.get_text().replace("\n", ": ") for own in legends for t in own.get_texts()]


def pixels_of(figure, axes):
    """Return a figure's picture as signed numbers, and which of its pixels lie in one panel."""
    picture = figure_to_array(figure).astype(int)
    box = axes.get_window_extent()
    rows, columns = np.indices(picture.shape[:2])
    up = picture.shape[0] - 1 - rows
    inside = (box.x0 < columns) & (columns < box.x1 - 1) & (box.y0 < up) & (up < box.y1 - 1)
    return picture, inside


def coloured_centre(figure, axes, colour):
    """Return (row, column) in voxels of the middle of all pixels near a colour in one panel."""
    picture, inside = pixels_of(figure, axes)
    rows, columns = np.nonzero(inside & (np.abs(picture - colour).sum(axis=2) < 60))
    assert len(rows), "no such colour in this panel"
    at = (columns.mean() + 0.5, len(picture) - rows.mean() - 0.5)
    x, y = axes.transData.inverted().transform(at)
    return y, x


def test_slices_through_the_point_with_z_up_and_y_down(image):
    figure = plot_slices(image, centre=(30.4, 5.6, 7.0), title="scan 1")
    shown = panels(figure)
    assert [a.get_title() for a in shown.values()] == [
        "axial, z = 30",
        "coronal, y = 6",
        "sagittal, x = 7",
    ]
    expected = {"axial": image[30], "coronal": image[:, 6], "sagittal": image[:, :, 7]}
    for name, axes in shown.items():
        np.testing.assert_array_equal(axes.images[0].get_array(), expected[name])
        rows, columns = VIEWS[name]
        assert axes.get_xlabel() == f"{'zyx'[columns]} (voxels)"
        assert axes.get_ylabel() == f"{'zyx'[rows]} (voxels)"
        assert tuple(axes.get_xlim()) == (-0.5, SHAPE[columns] - 0.5)
        bottom, top = axes.get_ylim()
        assert (bottom < top) == (rows == 0)


def test_points_lie_where_their_voxels_are(image):
    truth = (33.0, 4.0, 15.0)
    figure = plot_slices(image * 0, centre=truth, title="t", points={"truth": truth})
    for name, axes in panels(figure).items():
        found = coloured_centre(figure, axes, (0x56, 0xB4, 0xE9))
        expected = [truth[axis] for axis in VIEWS[name]]
        np.testing.assert_allclose(found, expected, atol=0.15)


def test_predicted_points_look_the_same_with_and_without_the_truth(image):
    both = plot_slices(image, centre=(9, 9, 9), title="t", points={"truth": (9, 9, 9), **PREDICTED})
    alone = plot_slices(image, centre=(9, 9, 9), title="t", points=PREDICTED)
    markers = [[line.get_marker() for line in panels(f)["axial"].lines] for f in (both, alone)]
    assert markers == [["o", "+"], ["+"]]
    assert legend(both) == [
        "truth: 9.0, 9.0, 9.0 (z, y, x)",
        "predicted centre: 8.0, 7.5, 9.0 (z, y, x)",
    ]


PREDICTED = {"predicted centre": (8.0, 7.5, 9.0)}


@pytest.mark.parametrize("stride", [2, (4.0, 2.0, 2.5)])
def test_a_coarse_heatmap_lies_over_the_voxels_that_it_covers(image, stride):
    # voxel j covers s*j ... s*j + s - 1: drawn from zero it would sit half a stride off
    strides = np.broadcast_to(stride, 3)
    shape = np.ceil(np.array(SHAPE) / strides).astype(int)
    voxel = np.array([6, 3, 5])
    heatmap = np.zeros(shape)
    heatmap[tuple(voxel)] = 0.25
    centre = strides * (voxel + 0.5) - 0.5
    figure = plot_slices(
        image * 0, centre=centre, title="t", heatmap=heatmap, heatmap_stride=stride
    )
    picture_of_peak = (184, 191, 27)  # the colour map's end at its opacity, over black
    for name, axes in panels(figure).items():
        found = coloured_centre(figure, axes, picture_of_peak)
        expected = [centre[axis] for axis in VIEWS[name]]
        np.testing.assert_allclose(found, expected, atol=0.3)


def test_colour_bar_says_what_and_how_much(image):
    heatmap = np.full((20, 8, 10), 0.002)
    figure = plot_slices(image, centre=(9, 9, 9), title="t", heatmap=heatmap, heatmap_stride=2)
    (bar,) = [a for a in figure.axes if a.get_xlabel().startswith("probability per voxel\n")]
    assert bar.get_xlabel().endswith("white line: half of the highest")
    assert [t.get_text() for t in bar.get_xticklabels()] == ["0", "0.002"]


def test_mask_is_red_where_it_is_and_nowhere_else(image):
    mask = np.zeros(SHAPE, np.uint8)
    mask[28:33, 3:8, 10:15] = 3
    figure = plot_slices(image * 0, centre=(30, 5, 12), title="t", mask=mask)
    for name, axes in panels(figure).items():
        found = coloured_centre(figure, axes, (76, 12, 12))
        expected = [(30, 5, 12)[axis] for axis in VIEWS[name]]
        np.testing.assert_allclose(found, expected, atol=0.2)
    assert legend(figure) == ["jaw mask"]
    elsewhere = plot_slices(image * 0, centre=(5, 14, 1), title="t", mask=mask)
    for axes in panels(elsewhere).values():
        picture, inside = pixels_of(elsewhere, axes)
        assert np.ptp(picture, axis=2)[inside].max() < 10


def test_voxels_keep_their_proportions_and_the_bar_its_length(image):
    spacing = (0.5, 0.25, 0.125)
    figure = plot_slices(image, centre=(9, 9, 9), title="t", spacing_mm_zyx=spacing)
    figure_to_array(figure)
    for name, axes in panels(figure).items():
        rows, columns = VIEWS[name]
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        assert abs(y1 - y0) / abs(x1 - x0) == pytest.approx(spacing[rows] / spacing[columns])
        (bar,) = axes.lines
        start, end = bar.get_transform().transform(bar.get_xydata())[:, 0]
        (label,) = [t.get_text() for t in axes.texts]
        shown_mm = (end - start) / abs(x1 - x0) * spacing[columns]
        assert shown_mm == pytest.approx(float(label.removesuffix(" mm")))


def test_unknown_spacing_is_said_and_no_mm_is_invented(image):
    figure = plot_slices(image, centre=(9, 9, 9), title="scan 1")
    assert any("spacing unknown" in text for text in words(figure))
    assert not any("mm" in text for text in words(figure))


def test_planes_of_a_scan_too_large_for_memory_give_the_same_picture(image):
    centre = (30, 5, 12)
    whole = plot_slices(image, centre=centre, title="t", mask=image > 110)
    cut = plot_slices(
        orthogonal_slices(image, centre),
        centre=centre,
        title="t",
        mask=orthogonal_slices(image > 110, centre),
    )
    np.testing.assert_array_equal(figure_to_array(whole), figure_to_array(cut))


def test_window_is_drawn_round_its_voxels(image):
    figure = plot_slices(image, centre=(9, 9, 9), title="t", window=((2, 3, 4), (12, 13, 14)))
    (box,) = [p for p in panels(figure)["coronal"].patches if isinstance(p, Rectangle)]
    assert box.get_bbox().bounds == (3.5, 1.5, 10.0, 10.0)
    assert legend(figure) == ["crop window"]


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_can_be_drawn(value):
    picture = figure_to_array(plot_slices(np.full(SHAPE, value), centre=(1, 1, 1), title="t"))
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (1200, 3)


def test_crop_shows_the_whole_jaw_and_says_if_it_is_cut_off(image):
    mask = np.zeros(SHAPE, np.uint8)
    mask[35:40, 2:5, 3:6] = 1  # on no middle plane, and on the upper face
    figure = plot_crop(image, mask, title="crop")
    assert any("high z: it may be cut off" in text for text in words(figure))
    for axes in panels(figure).values():
        assert axes.images[-1].get_array()[..., 3].any()


def records(n=12, in_mm=True, shrink=True):
    made = []
    for epoch in range(1, n + 1):
        sigma = 8 * 0.5 ** ((epoch - 1) // 4) if shrink else 8.0
        mm = (0.1, 0.08, 0.3) if in_mm else (None,) * 3
        error = 3.0 if epoch != 5 else 2.0
        train = HeatmapMetrics(50 / epoch, 0.75, 1e-7, 1.0, 0.9, 2.0, *mm)
        val = HeatmapMetrics(60 / epoch, 0.5, 1e-7, error, 1.5, 9.0, *mm)
        made.append(EpochRecord(epoch, sigma, 1e-3, train, val, 1.0))
    return made


def curve(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def test_losses_mark_every_change_of_sigma():
    figure = plot_losses(records(), threshold=1.0, minimum_sigmas_voxels=[2.0])
    (axes,) = figure.axes
    np.testing.assert_allclose(curve(axes, "training").get_ydata(), 50 / np.arange(1, 13))
    np.testing.assert_allclose(curve(axes, "validation").get_ydata(), 60 / np.arange(1, 13))
    marks = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in marks] == [4.5, 8.5]
    assert [text.get_text() for text in axes.texts] == ["4.00", "2.00"]
    assert axes.get_ylabel() == "KL divergence (nats)"
    assert axes.get_xlabel() == "epoch"
    assert axes.get_yscale() == "log"
    (shaded,) = axes.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (8.5, 12.5)


@pytest.mark.parametrize("epochs", [250, 30])
def test_every_sigma_has_its_label_and_none_covers_another(epochs):
    """Regression: of changes in one epoch after the other, only every second was labelled."""
    made = [replace(r, sigma_voxels=max(8 * 0.9 ** (r.epoch - 1), 1.0)) for r in records(epochs)]
    figure = plot_losses(made)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    expected = [f"{r.sigma_voxels:.2f}" for r in made[1:21]]
    assert [text.get_text() for text in axes.texts] == expected
    assert [text.xy[0] for text in axes.texts] == [n + 0.5 for n in range(1, 21)]
    boxes = [text.get_bbox_patch() or Text.get_window_extent(text) for text in axes.texts]
    for left, right in pairwise(boxes):
        assert left.x1 <= right.x0
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= 1200
    assert max(box.y1 for box in boxes) <= figure.get_figheight() * 100


def test_labels_are_spread_about_their_own_places_and_stay_inside():
    assert spread_out([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0]
    assert spread_out([4.0, 4.0, 4.0], 1.0, 0.0, 10.0) == [3.0, 4.0, 5.0]
    assert spread_out([0.0, 0.1, 9.9], 2.0, 0.0, 10.0) == [1.0, 3.0, 9.0]
    assert spread_out([], 1.0, 0.0, 10.0) == []


@pytest.mark.parametrize("plot", [plot_losses, plot_metrics, plot_sigma])
def test_curves_are_told_apart_without_their_colours(plot):
    for axes in plot(two_stages()).axes:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 12]
        assert len(lines) > 1
        looks = {(line.get_marker(), line.get_drawstyle()) for line in lines}
        sigmas = sum(line.get_drawstyle() == "steps-mid" for line in lines)
        assert len(looks) == len(lines) - max(sigmas - 1, 0)


def two_stages():
    """Twelve epochs whose coarse sigma changes after 2 of them, the fine one after 4 and 8."""
    made = []
    for record in records():
        train, val = (replace(m, kl_nats=2 * m.kl_nats) for m in (record.train, record.val))
        val = replace(val, error_voxels=7.0, error_mm=0.7)
        coarse = StageRecord("coarse", 16.0 if record.epoch < 3 else 12.0, train, val)
        made.append(replace(record, earlier_stages=(coarse,)))
    return made


def test_each_stages_loss_and_changes_of_sigma_have_its_panel_and_colour():
    figure = plot_losses(two_stages(), threshold=1.0, minimum_sigmas_voxels=[12.0, 2.0])
    coarse, fine = figure.axes
    colours = []
    for axes, factor, changes, sigmas, shaded_from in (
        (coarse, 2, [2.5], ["12.00"], 2.5),
        (fine, 1, [4.5, 8.5], ["4.00", "2.00"], 8.5),
    ):
        epochs = np.arange(1, 13)
        np.testing.assert_allclose(curve(axes, "training").get_ydata(), factor * 50 / epochs)
        np.testing.assert_allclose(curve(axes, "validation").get_ydata(), factor * 60 / epochs)
        marks = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in marks] == changes
        assert [text.get_text() for text in axes.texts] == sigmas
        assert {line.get_color() for line in marks} == {curve(axes, "training").get_color()}
        assert curve(axes, "threshold 1").get_ydata()[0] == 1
        (shaded,) = axes.patches
        assert shaded.get_x() == shaded_from
        colours.append(marks[0].get_color())
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "KL divergence (nats), coarse stage",
        "KL divergence (nats), fine stage",
    ]
    sigma = plot_sigma(two_stages()).axes[0]
    for stage, colour in zip(("coarse", "fine"), colours, strict=True):
        assert curve(sigma, f"sigma, {stage}").get_color() == colour
        assert curve(sigma, f"mean error, {stage}").get_color() == colour
    assert colours[0] != colours[1]


def test_two_stages_have_their_own_sigma_and_error_in_every_unit():
    voxels, mm = plot_sigma(two_stages()).axes
    assert list(curve(voxels, "sigma, coarse").get_ydata()) == [16.0] * 2 + [12.0] * 10
    assert list(curve(voxels, "sigma, fine").get_ydata()) == [8] * 4 + [4] * 4 + [2] * 4
    assert set(curve(voxels, "mean error, coarse").get_ydata()) == {7.0}
    assert set(curve(mm, "mean error, coarse").get_ydata()) == {0.7}
    assert list(curve(voxels, "lowest, epoch 5: 2 voxels").get_xdata()) == [5]


def test_mse_as_a_loss_is_drawn_as_it_is_trained_on_with_its_threshold():
    """Regression: the plain mean was drawn, on another axis than the threshold."""
    made = [
        replace(
            record,
            train=replace(record.train, mse_relative=0.9),
            val=replace(record.val, mse_relative=0.95),
        )
        for record in records()
    ]
    (axes,) = plot_losses(made, loss="mse", threshold=0.787).axes
    assert set(curve(axes, "training").get_ydata()) == {0.9}
    assert set(curve(axes, "validation").get_ydata()) == {0.95}
    assert curve(axes, "threshold 0.787").get_ydata()[0] == 0.787


def test_losses_of_a_fixed_sigma_have_no_marks():
    (axes,) = plot_losses(records(shrink=False)).axes
    assert not [line for line in axes.lines if line.get_linestyle() == ":"]


def test_dice_as_a_loss_falls():
    (axes,) = plot_losses(records(), loss="dice").axes
    assert set(curve(axes, "training").get_ydata()) == {0.25}
    assert axes.get_ylabel() == "1 − Dice score"


def test_metrics_have_a_panel_each_for_both_splits():
    figure = plot_metrics(records())
    assert [axes.get_ylabel().split(" (")[0] for axes in figure.axes] == [
        "KL divergence",
        "Dice score",
        "mean squared error",
    ]
    assert set(curve(figure.axes[1], "validation").get_ydata()) == {0.5}
    assert set(curve(figure.axes[1], "training").get_ydata()) == {0.75}


@pytest.mark.parametrize(("in_mm", "units"), [(True, ["voxels", "mm"]), (False, ["voxels"])])
def test_sigma_stands_beside_the_error_in_every_known_unit(in_mm, units):
    figure = plot_sigma(records(in_mm=in_mm))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert [label.partition("(")[2].rstrip(")").split()[-1] for label in labels] == units
    voxels = figure.axes[0]
    assert list(curve(voxels, "sigma").get_ydata()) == [8] * 4 + [4] * 4 + [2] * 4
    best = curve(voxels, "lowest, epoch 5: 2 voxels")
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([5], [2.0])
    if in_mm:  # the same epoch, also where mm would have another lowest
        assert list(curve(figure.axes[1], "lowest in voxels, epoch 5: 0.1 mm").get_xdata()) == [5]


def test_of_several_objects_each_has_a_curve():
    made = []
    for record in records():
        own = {name: replace(record.val, error_voxels=e) for name, e in (("left", 1.0), ("b", 5.0))}
        made.append(replace(record, val=replace(record.val, by_object=own)))
    for axes in plot_sigma(made).axes:
        labels = [line.get_label() for line in axes.lines]
        assert {"mean error of left", "mean error of b"} <= set(labels)
    voxels = plot_sigma(made).axes[0]
    assert set(curve(voxels, "mean error of b").get_ydata()) == {5.0}
    assert not [x for x in plot_sigma(records()).axes[0].lines if " of " in x.get_label()]


def test_six_objects_are_told_apart_by_their_marks(image):
    points = {
        f"{kind} centre of {n}": (n, n, n) for kind in ("true", "predicted") for n in range(6)
    }
    figure = plot_slices(image, centre=(9, 9, 9), title="t", points=points)
    (axes,) = [axes for axes in figure.axes if axes.get_legend() is not None]
    marks = {(h.get_marker(), h.get_color()) for h in axes.get_legend().legend_handles}
    assert len(marks) == 12


def test_a_crop_names_what_it_is_of(image):
    mask = np.zeros(SHAPE, np.uint8)
    mask[35:40, 2:5, 3:6] = 1
    said = words(plot_crop(image, mask, title="crop", object_name="otolith"))
    assert any("the otolith touches the crop's border" in text for text in said)
    assert not any("jaw" in text for text in said)


@pytest.mark.parametrize("plot", [plot_losses, plot_metrics, plot_sigma])
def test_one_epoch_is_enough_and_none_is_refused(plot):
    before = dict(matplotlib.rcParams)
    assert figure_to_array(plot(records(1))).shape[1] == 1200
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="at least one epoch"):
        plot([])


def test_saving_writes_the_picture_and_returns_it(image, tmp_path):
    figure = plot_slices(image, centre=(9, 9, 9), title="t")
    before = figure_to_array(figure)
    returned = save_figure(figure, tmp_path / "slices.png")
    np.testing.assert_array_equal(returned, before)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "slices.png")), before)
