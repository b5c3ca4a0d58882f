"""jawloc: finds the jaw in zebrafish micro-CT scans.

Data flows one way through the wings: scans -> (cache) examples -> training, which renders
heatmaps at the curriculum's sigma -> locating -> reporting. `experiment.py` is the main path.
"""

__version__ = "0.1.0"
