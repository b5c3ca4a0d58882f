"""Make the phantoms that the studies of this folder search with.

python experiments/curriculum/phantoms.py        # dicoms/phantoms, 68 scans, about ten seconds
python experiments/curriculum/phantoms.py 111    # more of them; the first 68 are the same
python experiments/curriculum/phantoms.py 51 512 # 640×160×160, dicoms/phantoms_512, three minutes
"""

from __future__ import annotations

import sys
from pathlib import Path

from jawloc.phantom import write_phantoms

if __name__ == "__main__":  # the processes that draw phantoms read this file again
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 68
    large = len(sys.argv) > 2
    folder = Path("dicoms") / ("phantoms_512" if large else "phantoms")
    write_phantoms(folder, number, (640, 160, 160) if large else (288, 96, 96))
