"""What does pruning save? Best error so far against epochs trained, of two studies of one space.

    jawloc-tune --trials 30 --epochs 80 --study-name plain --pruner none \\
        --experiment experiments/curriculum/phantoms.yml
    jawloc-tune --trials 30 --epochs 80 --study-name pruned --pruner median \\
        --experiment experiments/curriculum/phantoms.yml
    python experiments/curriculum/pruning.py script_output/tuning/plain script_output/tuning/pruned

Prints epochs and best errors, and writes `results/pruning.png` beside this script.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

RESULTS = Path(__file__).resolve().parent / "results"


@click.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(studies: tuple[Path, ...], results: Path) -> None:
    """Compare STUDIES (folders with a trials.csv), the first being the one without a pruner."""
    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import Colour

    figure = Figure((9, 4.5), layout="constrained")
    axes = figure.subplots()
    first = None
    for folder, colour in zip(studies, (Colour.BLUE, Colour.VERMILION, Colour.GREEN), strict=False):
        trials = pd.read_csv(folder / "trials.csv")
        epochs = trials["epochs"].cumsum()
        best = trials["error_voxels"].cummin().ffill()
        first = epochs.iloc[-1] if first is None else first
        states = ", ".join(f"{n} {state}" for state, n in trials["state"].value_counts().items())
        axes.step(epochs, best, where="post", color=colour, label=f"{folder.name}: {states}")
        click.echo(
            f"{folder.name}: {states}; {epochs.iloc[-1]} epochs ({1 - epochs.iloc[-1] / first:.0%} "
            f"fewer), best {best.iloc[-1]:.3f} voxels"
        )
    axes.set_xlabel("epochs trained, all trials together")
    axes.set_ylabel("best validation error so far (voxels)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    results.mkdir(parents=True, exist_ok=True)
    save_figure(figure, results / "pruning.png")


if __name__ == "__main__":
    main()
