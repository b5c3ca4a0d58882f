"""jawloc: finds the jaw in zebrafish micro-CT scans.

Data flows one way through the folders: scans -> (cache) examples -> training, which renders
heatmaps -> inference -> reporting. `workflows/train.py` is the main path.
"""

__version__ = "0.1.0"
