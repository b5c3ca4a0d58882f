"""Which settings are params of a run: those by which runs are compared.

MLflow's page lists all params of a run above each of its pictures, and begins comparisons with the
first params that differ. So where files lie, how fast a machine is, and what is rarely changed and
was left at its default are not among them; `config.yml` among the run's files has every setting.
"""

from __future__ import annotations

from collections.abc import Iterable

# Params of every run, whether they were set or not.
ALWAYS = (
    *("curriculum.threshold", "curriculum.minimum_sigma", "curriculum.shrink_factor"),
    *("initial_kernel_size", "learning_rate", "batch_size", "num_epochs"),
)
# No params even if they were set: where files lie, how fast a machine is, the run's tags, the crop.
NEVER = frozenset(
    {
        *("dicom_dirs", "cache_dir", "n_workers", "device", "cpu_threads", "memory_budget_gb"),
        *("downsampled_dicom_size", "objects", "crop_size", "corrections", "compare_with"),
    }
)


def compared_settings(changed: Iterable[str]) -> list[str]:
    """Return the keys of the settings to compare by: those of every run, then changed ones."""
    further = [key for key in changed if key.split(".")[0] not in NEVER and key not in ALWAYS]
    return [*ALWAYS, *further]
