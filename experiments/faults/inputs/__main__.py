"""Plant some mutations again, by their numbers, and show what becomes of them."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from campaign import Plan

from inputs.field import Field
from inputs.reading import outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jawloc-inputs-") as work:
        field = Field(Plan(short=True, seed=options.seed, work=Path(work)))
        for number in options.numbers:
            print(outcome(field, number), flush=True)


if __name__ == "__main__":
    main()
