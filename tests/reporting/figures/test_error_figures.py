"""Figures of an evaluation: what is drawn where, in which unit."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.inference.metrics import Bias
from jawloc.reporting.figures.errors import plot_bias, plot_success, plot_trust
from jawloc.reporting.figures.style import figure_to_array


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_curve_rises_to_one_and_the_radii_are_marked():
    figure = plot_success(np.array([0.3, 0.1, 0.4, 0.2]), "mm", [0.2, 1.0], "jaw")
    left, right = figure.axes
    curve = right.lines[0]
    np.testing.assert_allclose(curve.get_xdata(), [0, 0.1, 0.2, 0.3, 0.4, 1.05])
    np.testing.assert_allclose(curve.get_ydata(), [0, 0.25, 0.5, 0.75, 1, 1])
    assert legend(right) == ["50 % within 0.2", "100 % within 1"]
    assert left.get_xlabel() == right.get_xlabel() == "radial error (mm)"
    assert sum(patch.get_height() for patch in left.patches) == 4
    assert legend(left) == ["mean 0.25", "median 0.25"]
    assert figure_to_array(figure).shape == (460, 1200, 3)


def test_errors_against_what_was_foretold_beside_the_identity():
    figure = plot_trust(
        np.array([2.0, 8.0, 0.0]),
        np.array([4.0, 4.0, 4.0]),
        ["ok", "uncertain", "ok"],
        what="stated radius",
        name="jaw",
    )
    (axes,) = figure.axes
    ok, flagged, identity = axes.lines
    assert list(ok.get_ydata()) == [2.0, 0.001]  # 0 has no place on a log scale
    assert (flagged.get_xdata()[0], flagged.get_ydata()[0]) == (4.0, 8.0)
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    assert axes.get_xlim() == axes.get_ylim()
    assert legend(axes) == ["ok (2)", "uncertain (1)", "error = stated radius"]
    assert axes.get_title().endswith("1 of 3 above the line")
    assert "full-size voxels" in axes.get_xlabel()
    figure_to_array(figure)


@pytest.mark.parametrize("error", [None, 0.5])
def test_the_bias_is_the_tables_over_specimens(error):
    """Regression: eight scans of one fish counted as eight, and made a bias that was none."""
    offsets = np.array([*[[4.0, -2, 0]] * 8, [-2.0, -2, 0]])
    bias = {axis: Bias(mean, error) for axis, mean in zip("zyx", (1.0, -2, 0), strict=True)}
    figure = plot_bias(offsets, bias, "full_size_voxels", "jaw")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "predicted minus true (full-size voxels)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["z", "y", "x"]
    drawn = axes.containers[0]
    assert list(drawn.lines[0].get_ydata()) == [1, -2, 0]
    assert drawn.has_yerr == (error is not None)
    words = "mean" if error is None else "mean ± standard error,\nover specimens"
    assert legend(axes)[-1] == words
    figure_to_array(figure)
