"""The idea, pure: points <-> heatmaps, the sigma schedule, losses and metrics."""
