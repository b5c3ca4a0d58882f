"""The model that MLflow serves: scan paths in, positions out.

MLflow runs this file to get the model ("models from code"), so that nothing is pickled.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
from mlflow import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from jawloc.errors import InputError, reason_of
from jawloc.inference.locator import Localisation, load_locator
from jawloc.scans.opening import reading_below

FOLDER_VARIABLE = "JAWLOC_SCAN_FOLDER"
SERVING_VARIABLE = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # set by MLflow's scoring server
IN_VOXELS, IN_MM = ("z_voxels", "y_voxels", "x_voxels"), ("z_mm", "y_mm", "x_mm")
UNCERTAINTY = ["spread_voxels", "radius_voxels", "confidence", "status", "radius_note"]
COLUMNS = ["scan", "object", *IN_VOXELS, *IN_MM, *UNCERTAINTY]


class ServedLocator(PythonModel):
    """A locator behind MLflow's `predict`, which reads scans only inside one folder.

    That is the folder of the environment variable JAWLOC_SCAN_FOLDER, or of the setting
    `allowed_folder` of `mlflow.pyfunc.load_model(..., model_config=...)`. Served over HTTP it needs
    one of them; otherwise any caller could probe the server's files.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights (MLflow calls this once)."""
        self.locator = load_locator(Path(context.artifacts["weights"]), device="cpu")
        self.allowed_folder = (context.model_config or {}).get("allowed_folder")

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        """Locate every object in every scan; return a row an object of a scan.

        `model_input` has one column, `scan` (MLflow also makes it from a list): paths of scan files
        or folders, relative ones to the allowed folder. A row has the scan as given, the position
        in voxels of the full-size scan and in mm (None where the spacing is unknown), and its
        uncertainty as in `Localisation`. A scan outside the folder, or that can't be read, raises
        MlflowException with the reason; over HTTP, status 400.
        """
        folder = os.environ.get(FOLDER_VARIABLE) or self.allowed_folder
        rows = []
        for given in map(str, model_input.iloc[:, 0]):
            try:
                path = checked_path(given, folder)
                with reading_below(None if folder is None else Path(folder)):
                    found = self.locator.locate(path)
            except Exception as error:
                # HTTP callers see messages of MLflow's own errors, and tracebacks of all others
                message = reason_of(error, given)
                raise MlflowException.invalid_parameter_value(message) from error
            rows += [_row(given, localisation) for localisation in found]
        table = pd.DataFrame(rows, columns=COLUMNS)
        mm = table[list(IN_MM)]
        return table.assign(**mm.astype(object).where(mm.notna(), None))  # NaN isn't JSON


def checked_path(given: str, folder: str | None) -> Path:
    """Return the path of a scan, if it may be read; raise InputError otherwise.

    It must lie in `folder` once links and `..` are resolved; a served model needs a folder. What
    is there when the file is opened, and what it names, `reading_below` checks.
    """
    if folder is None:
        if os.environ.get(SERVING_VARIABLE) == "true":
            raise InputError(
                f"{given}: a served locator reads scans only inside the folder that the server's "
                f"environment variable {FOLDER_VARIABLE} names; it is not set"
            )
        return Path(given)
    allowed = Path(folder).resolve()
    try:
        path = (allowed / given).resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # a link to itself; a name that none can have
        raise InputError(
            f"{given}: a scan must be a file or folder; this leads to neither"
        ) from None
    if not path.is_relative_to(allowed):
        # callers need not know which folder that is
        raise InputError(
            f"{given}: scans are read only inside the folder that {FOLDER_VARIABLE} names; this "
            f"path leads out of it"
        )
    return path


def _row(given: str, found: Localisation) -> list[object]:
    mm = found.point_mm or (None, None, None)
    uncertainty = [getattr(found, name) for name in UNCERTAINTY]
    return [given, found.object_name, *found.point_voxels, *mm, *uncertainty]


set_model(ServedLocator())
