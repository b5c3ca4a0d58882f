"""Points <-> heatmaps, the sigma schedule, losses and metrics: no files, no global state."""
