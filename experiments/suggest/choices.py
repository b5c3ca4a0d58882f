"""Label the scans that a model suggests, or random ones; train again, and compare the errors.

    python experiments/suggest/choices.py experiments/suggest/choices.yml

For each kind of scans and each seed, the scans are shuffled and divided: some train two networks,
some are held out and only test, the others are the pool to choose from. Each choice from the pool
is added to the training scans, and a network of the same seed trains on all. A training that is in
`results/choices.csv` is not repeated. Writes that table, a row a training, and
`results/choices.png` beside this script; with --first-seed 5,
`results/choices_from_5.csv` and so on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import yaml
from scipy import stats
from tqdm import tqdm

from jawloc.cli.options import Command, SettingsOptions, takes_settings
from jawloc.config import Config, change_config
from jawloc.inference.calibrate import calibrate
from jawloc.inference.evaluate_scan import evaluate_positions
from jawloc.inference.locator import Locator, load_locator, save_locator
from jawloc.inference.mask_share import choose_mask_shares
from jawloc.inference.out_of_distribution import disagreement_scores
from jawloc.reporting.text_files import write_text
from jawloc.scans.cache import ExampleFile, build_cache, open_example
from jawloc.training.provenance import image_fingerprint
from jawloc.training.splits import Split
from jawloc.workflows.log_training import best_locator
from jawloc.workflows.prepare_data import Data
from jawloc.workflows.train import start_state, train

RESULTS = Path(__file__).resolve().parent / "results"
SUGGESTED, RANDOM = "suggested", ("random 1", "random 2")
CRITERIA = ("disagreement", "quality", "distance")  # whose mean rank suggests
Row = dict[str, Any]


@dataclass(frozen=True)
class Division:
    """The scans of one kind, divided for one seed."""

    kind: str
    seed: int
    config: Config
    added: int  # number of scans that are labelled in the second round
    start: tuple[ExampleFile, ...]
    validation: tuple[ExampleFile, ...]
    pool: tuple[ExampleFile, ...]
    test: tuple[ExampleFile, ...]

    @property
    def notes(self) -> Path:
        """Return the file that keeps which scans were chosen, should the experiment be stopped."""
        return self.config.base / "script_output" / "suggest" / f"{self.kind}_{self.seed}.json"


@click.command(cls=Command)
@click.argument("plan_path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--choice", "ways", multiple=True, type=click.Choice((SUGGESTED, *CRITERIA)))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@takes_settings
def main(
    plan_path: Path,
    seeds: int,
    first_seed: int,
    ways: tuple[str, ...],
    results: Path,
    settings: SettingsOptions,
) -> None:
    """Choose scans in every way, train with them, and test on scans that nothing else saw."""
    ways = ways or (SUGGESTED, *CRITERIA)
    plan = yaml.safe_load(plan_path.read_text(encoding="utf-8"))
    table = results / f"{plan_path.stem}{f'_from_{first_seed}' if first_seed else ''}.csv"
    rows: list[Row] = pd.read_csv(table).to_dict("records") if table.exists() else []
    divisions = list(divide(settings.load(), plan, range(first_seed, first_seed + seeds)))
    # what the question needs comes first, each criterion alone afterwards
    jobs = [(one, way) for one in divisions for way in ("none", ways[0], *RANDOM)]
    jobs += [(one, way) for one in divisions for way in ways[1:]]
    done = {(row["kind"], row["seed"], row["choice"]) for row in rows}
    left = [(one, way) for one, way in jobs if (one.kind, one.seed, way) not in done]
    table.parent.mkdir(parents=True, exist_ok=True)
    for one, way in tqdm(left, unit="training", initial=len(jobs) - len(left), total=len(jobs)):
        rows.append(run_one(one, way, choices(one)[way]))
        write_text(table, pd.DataFrame(rows).to_csv(index=False))
    click.echo(verdict(pd.DataFrame(rows)))
    draw(table.with_suffix(".png"), pd.DataFrame(rows))


def divide(base: Config, plan: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Division]:
    """Yield each seed's division of each kind; the cache is filled on the way."""
    examples, configs = {}, {}
    for kind, about in plan["kinds"].items():
        values = {**plan["settings"], **about["settings"], "dicom_dirs": [about["scans"]]}
        configs[kind] = config = change_config(base, values, source="the plan")
        scans = sorted((base.base / about["scans"]).glob("*.dcm"))
        cached = build_cache(scans, config.cache, base=base.base).cached
        examples[kind] = [open_example(path, config.cache.objects) for path in cached]
    for seed in seeds:
        for kind, about in plan["kinds"].items():
            numbers, shuffled = about["numbers"], list(examples[kind])
            random.Random(seed).shuffle(shuffled)
            parts = {}
            for part in ("start", "validation", "pool", "test"):
                parts[part] = tuple(shuffled[: numbers[part]])
                shuffled = shuffled[numbers[part] :]
                assert len(parts[part]) == numbers[part], f"{kind}: too few scans"
            config = change_config(configs[kind], {"seed": seed}, source="the plan")
            yield Division(kind, seed, config, numbers["added"], **parts)


def choices(one: Division) -> dict[str, list[str]]:
    """Return the ids of the scans that each way chooses from the pool."""
    if one.notes.exists():
        return json.loads(one.notes.read_text(encoding="utf-8"))
    ranks = {name: stats.rankdata(values) for name, values in scores(one).items()}
    ranks[SUGGESTED] = np.mean([ranks[name] for name in CRITERIA], axis=0)
    ids = [file.scan_id for file in one.pool]
    chosen = {
        way: [ids[i] for i in np.argsort(-rank, kind="stable")[: one.added]]
        for way, rank in ranks.items()
    }
    draws = random.Random(1000 + one.seed)
    chosen |= {"none": []} | {way: draws.sample(ids, one.added) for way in RANDOM}
    write_text(one.notes, json.dumps(chosen))
    return chosen


def scores(one: Division) -> dict[str, np.ndarray]:
    """Return how much each scan of the pool promises to teach by each criterion, shape (scan,)."""
    first, second = (train_locator(one, one.start, seed) for seed in (one.seed, 100 + one.seed))
    one.notes.parent.mkdir(parents=True, exist_ok=True)
    save_locator(first, one.notes.with_suffix(".pth"))
    both = replace(
        first,
        networks=(*first.networks, *second.networks),
        sigma_voxels=(*first.sigma_voxels, *second.sigma_voxels),
    )
    calibrated = calibrate(first, (), one.validation, one.start)
    assert calibrated.calibration is not None
    known = np.stack([fingerprint(file) for file in one.start])
    found: dict[str, list[float]] = {name: [] for name in CRITERIA}
    for file in one.pool:
        image = file.read().image
        points = np.stack([net.predict(image).points_voxels for net in (first, second)])
        found["disagreement"].append(disagreement_scores(points)[0]["disagreement"])
        found["quality"].append(-p_value(calibrated, both, image, file))
        apart = np.sqrt(((known - fingerprint(file)) ** 2).mean(axis=(1, 2, 3)))
        found["distance"].append(float(apart.min()))
    return {name: np.array(values) for name, values in found.items()}


def p_value(calibrated: Locator, both: Locator, image: np.ndarray, file: ExampleFile) -> float:
    """Return the p-value by which `jawloc locate` flags a scan; low: unlike the known ones."""
    assert calibrated.calibration is not None
    prediction, (name,) = both.predict(image), calibrated.objects
    return calibrated.calibration.assess_quality(
        name,
        prediction.image_features,
        file.source_grid,
        prediction.ood_scores[0],
        raw_input=False,
    ).p_value


def fingerprint(file: ExampleFile) -> np.ndarray:
    """Return the block means of a scan's image, as a model file keeps those of its scans."""
    return image_fingerprint(file.read().image).astype(float)


def train_locator(one: Division, scans: Sequence[ExampleFile], seed: int) -> Locator:
    """Train a locator on some scans."""
    config = change_config(one.config, {"seed": seed}, source="the plan")
    ids = [tuple(file.scan_id for file in part) for part in (scans, one.validation, one.test)]
    examples = {file.scan_id: file for file in (*scans, *one.validation)}
    state = start_state(config, torch.device("cpu"))
    for _ in train(state, config, Data(Split(*ids), examples), progress=False):
        pass
    return choose_mask_shares(best_locator(state, config), one.validation, scans)


def run_one(one: Division, way: str, chosen: Sequence[str]) -> Row:
    """Train with the scans that were chosen, too, and look for the objects in the test scans."""
    if chosen:
        scans = (*one.start, *(file for file in one.pool if file.scan_id in chosen))
        locator = train_locator(one, scans, one.seed)
    else:
        locator = load_locator(one.notes.with_suffix(".pth"))
    errors = evaluate_positions(
        (file.read() for file in one.test),
        lambda example: locator.predict(example.image).points_voxels,
        list(locator.objects),
    )
    mm = [error.error_mm for error in errors]
    return {
        "kind": one.kind,
        "seed": one.seed,
        "choice": way,
        "error_mm": float(np.mean(mm)),
        "worst_mm": float(np.max(mm)),
        "chosen": " ".join(chosen),
    }


def ratios(rows: pd.DataFrame, way: str) -> pd.Series:
    """Return each seed's error by a way of choosing, divided by the mean of random choice's."""
    errors = rows.pivot_table(index=["kind", "seed"], columns="choice", values="error_mm")
    return (errors[way] / errors[list(RANDOM)].mean(axis=1)).dropna()


def verdict(rows: pd.DataFrame) -> str:
    """Return mean errors, and each way's p-value against random choice, as text."""
    lines = [rows.groupby(["kind", "choice"], sort=False)["error_mm"].mean().unstack().to_string()]
    for way in (SUGGESTED, *CRITERIA):
        if way not in set(rows["choice"]):
            continue
        own = ratios(rows, way)
        p = stats.wilcoxon(np.log(own), alternative="less").pvalue
        lines.append(
            f"{way}: better than random in {int((own < 1).sum())} of {len(own)}, ratio "
            f"{np.exp(np.log(own).mean()):.3f}, p {p:.3f}"
        )
    return "\n".join(lines)


def draw(path: Path, rows: pd.DataFrame) -> None:
    """Draw every seed's error by each way of choosing, as a share of random choice's."""
    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import Colour

    figure = Figure((10, 4.2), layout="constrained")
    axes = figure.subplots()
    ways = [w for w in ("none", *CRITERIA, SUGGESTED) if w in set(rows["choice"])]
    styles = ((Colour.BLUE, "o"), (Colour.VERMILION, "D"))
    looks = dict(zip(rows["kind"].unique(), styles, strict=False))
    for place, way in enumerate(ways):
        own = ratios(rows, way)
        for shift, (kind, (colour, marker)) in zip((-0.12, 0.12), looks.items(), strict=True):
            some = own[kind] if kind in own.index.get_level_values(0) else own.iloc[:0]
            label = kind if place == 0 else None
            axes.plot(some, [place + shift] * len(some), marker, color=colour, label=label)
        axes.plot([np.exp(np.log(own).mean())] * 2, [place - 0.3, place + 0.3], color=Colour.BLACK)
    axes.axvline(1, color=Colour.BLACK, linestyle=":")
    names = {"none": "no scan added", SUGGESTED: "mean rank of the three"}
    axes.set_yticks(range(len(ways)), [names.get(way, way) for way in ways])
    axes.set_ylim(len(ways) - 0.5, -0.5)
    axes.set_xlabel(
        "error in held-out scans, divided by that after random choice (mean of 2 draws)"
    )
    axes.set_title("Left of 1: the chosen scans taught more. Bars: means of all seeds", loc="left")
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
