"""Make the phantoms that the studies of this folder search with.

python experiments/curriculum/phantoms.py        # dicoms/phantoms, 68 scans, about ten seconds
"""

from __future__ import annotations

from pathlib import Path

from jawloc.phantom import write_phantoms

if __name__ == "__main__":  # the processes that draw phantoms read this file again
    write_phantoms(Path("dicoms") / "phantoms", 68, (288, 96, 96))
