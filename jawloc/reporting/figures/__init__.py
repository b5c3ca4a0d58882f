"""Pictures of scans, heatmaps and training; the only package that imports matplotlib.

Every function returns a free-standing `Figure`: no pyplot, no state shared between figures.
"""

from matplotlib.figure import Figure

from jawloc.reporting.figures.curves import plot_losses, plot_metrics, plot_sigma
from jawloc.reporting.figures.errors import plot_bias, plot_success, plot_trust
from jawloc.reporting.figures.location import Panel, plot_location
from jawloc.reporting.figures.slices import plot_crop, plot_slices
from jawloc.reporting.figures.style import figure_to_array, save_drawn, save_figure

__all__ = [
    "Figure",
    "Panel",
    "figure_to_array",
    "plot_bias",
    "plot_crop",
    "plot_location",
    "plot_losses",
    "plot_metrics",
    "plot_sigma",
    "plot_slices",
    "plot_success",
    "plot_trust",
    "save_drawn",
    "save_figure",
]
