"""What other libraries draw, with jawloc's words."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from jawloc.reporting.figures import save_drawn


def test_counts_have_whole_numbers_and_labels_are_replaced(tmp_path, monkeypatch):
    """Regression: trials were numbered 0.0, 0.5, 1.0."""
    seen = {}

    def draw() -> Axes:
        axes = plt.figure().add_subplot()
        axes.plot([0, 1, 2], [3.0, 2.5, 2.2], label="Best Value")
        axes.set(xlabel="Trial", ylabel="Objective Value")
        axes.legend()
        seen["axes"] = axes
        return axes

    labels = {"Trial": "trial", "Best Value": "best so far"}
    save_drawn(draw, tmp_path / "history.png", (4.0, 3.0), "History", labels, ("Trial",))
    axes = seen["axes"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "Objective Value")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["best so far"]
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert (tmp_path / "history.png").stat().st_size > 0
