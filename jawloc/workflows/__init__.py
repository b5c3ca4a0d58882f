"""What each command does, one file a command: start reading in `train.py`."""
