"""Pictures of scans, heatmaps and training; the only package that imports matplotlib.

Every function returns a free-standing `Figure`: no pyplot, no state shared between figures.
"""

from jawloc.reporting.figures.style import Figure, figure_to_array, save_drawn, save_figure

__all__ = ["Figure", "figure_to_array", "save_drawn", "save_figure"]
