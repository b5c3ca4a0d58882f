"""Make the phantoms that the studies of this folder search with.

python experiments/curriculum/phantoms.py        # dicoms/phantoms, 68 scans, about ten seconds
python experiments/curriculum/phantoms.py 111    # more of them; the first 68 are the same
"""

from __future__ import annotations

import sys
from pathlib import Path

from jawloc.phantom import write_phantoms

if __name__ == "__main__":  # the processes that draw phantoms read this file again
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 68
    write_phantoms(Path("dicoms") / "phantoms", number, (288, 96, 96))
