"""Settings of the lab's file that suit the lab's network, and make the default one learn slowly."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator

from jawloc.config.keys import Sections
from jawloc.training.loop import TrainingConfig

MUCH = 4  # times as slow a rate, or as large a batch, as the default


def slow_settings(settings: Sections, set_by_user: Collection[str]) -> Iterator[str]:
    """Yield each setting that slows the default network, with what the default would be."""
    if settings.network.name != "unet":
        return
    own, default = settings.training, TrainingConfig()
    if "learning_rate" in set_by_user and own.learning_rate * MUCH <= default.learning_rate:
        yield f"learning_rate {own.learning_rate:g} (default {default.learning_rate:g})"
    in_steps = own.learning_rate_schedule == "one-cycle"  # its length, whatever the batch
    large = own.batch_size >= MUCH * default.batch_size
    if "batch_size" in set_by_user and large and not in_steps:
        yield f"batch_size {own.batch_size} (default {default.batch_size})"


def tell_slow_settings(settings: Sections, set_by_user: Collection[str]) -> None:
    """Print a note that names such settings, if there are any."""
    slow = list(slow_settings(settings, set_by_user))
    if slow and os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes
        print(
            f"note: {' and '.join(slow)} suit the lab's network (network: attention-unet); the "
            f"default network learns several times more slowly with them: leave them out",
            file=sys.stderr,
        )
