"""What an epoch's numbers are called in the store.

MLflow's pages sort metrics into sections by what stands before the slash; what has none comes
last, and what begins with `system/` has a page of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

# Names without a split, by their names in `metrics.csv`.
ELSEWHERE = {"learning_rate": "train/learning_rate", "seconds": "system/epoch_seconds"}


def grouped(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's numbers (`EpochRecord.flat`) under the store's names.

    `train_kl_nats` becomes `train/kl`, `val_error_jaw_mm` becomes `val/error_jaw_mm`,
    `sigma_coarse_voxels` becomes `curriculum/sigma_coarse`. Where each stage has a sigma, that of
    the last one is not repeated.
    """
    stages = any(key.startswith("sigma_") and key != "sigma_voxels" for key in numbers)
    left_out = {"sigma_voxels"} if stages else set()
    return {_grouped(key): value for key, value in numbers.items() if key not in left_out}


def _grouped(name: str) -> str:
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    first, _, rest = name.partition("_")
    if first == "sigma":
        return f"curriculum/{name.removesuffix('_voxels')}"
    return f"{first}/{rest.removesuffix('_nats')}"
