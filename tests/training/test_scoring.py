"""What a pass over scans keeps of each step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jawloc.heatmaps.target import are_present
from jawloc.training.coarse_to_fine import StagePrediction
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.scoring import mean_loss, score

POINTS = torch.tensor([[[3.0, 4.0, 5.0]]])


@pytest.mark.parametrize("loss", ["kl", "dice", "mse"])
def test_a_scored_step_lets_go_of_its_graph(loss):
    """Regression: an epoch's memory grew by every step's maps, which the graph holds."""
    scale = torch.tensor(1.0, requires_grad=True)
    predictions = StagePrediction(
        torch.randn(1, 1, 8, 8, 8) * scale, torch.zeros(1, 1, 3), 1, 2.0, (8, 8, 8)
    )
    scored = score([predictions], POINTS, torch.tensor([0]), loss)
    kept = scored.detached()
    (stage,) = kept.stages
    numbers = {
        "loss": kept.loss,
        "own": stage.loss,
        "predicted": stage.predicted,
        **vars(stage.scores),
    }
    assert [name for name, values in numbers.items() if values.grad_fn is not None] == []
    assert torch.equal(kept.loss, scored.loss)
    assert torch.equal(stage.scores.dice, scored.stages[0].scores.dice)
    scored.loss.sum().backward()
    assert scale.grad is not None and scale.grad != 0


# --- objects that are missing ----------------------------------------------------------------

LOSSES = ("kl", "dice", "mse")
NAN = float("nan")
TWO = torch.tensor([[(3.0, 4.0, 5.0), (NAN, NAN, NAN)], [(2.0, 2.0, 6.0), (5.0, 1.0, 3.0)]])


def predicted(logits):
    """Return the predictions of two stages, the second in a window for each object."""
    start = torch.tensor([[(0.0, 2.0, 0.0), (0.0, 0.0, 0.0)]]).expand(2, 2, 3)
    return [
        StagePrediction(logits, torch.zeros(2, 2, 3), 1, 2.0, (8, 10, 8)),
        StagePrediction(logits.flip(2), start, 1, 1.5, (8, 10, 8)),
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_the_objects_that_are_present(loss):
    logits = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    both = score(predicted(logits), TWO, torch.arange(2), loss)
    whole = score(predicted(logits), TWO.nan_to_num(4.0), torch.arange(2), loss)
    pairs = [(s.loss, w.loss) for s, w in zip(both.stages, whole.stages, strict=True)]
    for got, expected in ((both.loss, whole.loss), *pairs):
        assert got[0, 1] == 0
        present = are_present(TWO)
        assert torch.equal(got[present], expected[present])
    means = [mean_loss([both], number, SINGLE_PROCESS) for number in range(2)]
    expected = [stage.loss[are_present(TWO)].mean().item() for stage in whole.stages]
    assert means == pytest.approx(expected)
    assert means[0] != means[1]  # each stage's own


@pytest.mark.parametrize("loss", LOSSES)
def test_a_missing_objects_channel_gets_a_gradient_of_zero(loss):
    """A NaN would do as much harm behind a mask as in front of it: 0 * NaN is NaN."""
    logits = torch.randn(2, 2, 8, 8, 8, requires_grad=True)
    score(predicted(logits), TWO, torch.arange(2), loss).loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, 1] == 0).all()
    for scan, number in ((0, 0), (1, 0), (1, 1)):
        assert (logits.grad[scan, number] != 0).any()


@pytest.mark.parametrize("sizes", [(1, 1), (2, 0)])
def test_the_mean_over_processes_weighs_every_object_the_same(sizes):
    """A process may have the scans that lack an object, or nothing at all to do."""
    logits = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = score(predicted(logits), TWO, torch.arange(2), "kl")
    parts = []
    for part in torch.arange(2).split(list(sizes)):
        predictions = [
            replace(s, logits=s.logits[part], start=s.start[part]) for s in predicted(logits)
        ]
        parts.append([score(predictions, TWO[part], part, "kl")] if len(part) else [])

    class Both(Processes):
        def all_gather(self, items):
            """Return one's own items and what the other process has gathered."""
            gathered.append(list(items))
            return [item for part in gathered for item in part]

    gathered: list[list[float]] = []
    mean_loss(parts[0], 1, Both(0, 2))
    assert mean_loss(parts[1], 1, Both(1, 2)) == pytest.approx(
        mean_loss([whole], 1, SINGLE_PROCESS)
    )
    # the gradient: shares of one sum, each divided by what the whole batch shows
    shares = sum(s.loss.sum() / 3 for part in parts for s in part)
    torch.testing.assert_close(shares, whole.loss[are_present(TWO)].mean())
