"""A lab's files, made small: its settings, its labelled DICOMs, and a look at what it has."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom

SCAN_IDS = [f"phantom_{n:03d}" for n in range(5)]
SCAN_SHAPE = (48, 24, 24)
TINY_SETTINGS = {
    "dicom_dirs": ["dicoms/labelled"],
    "downsampled_dicom_size": [24, 12, 12],
    "initial_kernel_size": 4,
    "num_epochs": 3,
    "crop_size": [20, 20, 20],
    "learning_rate": 0.003,
    "network": {"channels": [4, 8], "stride": 2},
    "presence_classifier": {"steps": 2},
    # so large that every epoch is good enough for a narrower heatmap
    "curriculum": {"threshold": 100.0, "minimum_sigma": 1.5},
}

# jaw_loc_config as the lab wrote it, in a file that serves other tools too
LAB_CONFIG = """
rdsf_dir: /mnt/rdsf
unet_params:
  batch_size: 3
jaw_loc_config:
  downsampled_dicom_size: [512, 128, 128]
  initial_kernel_size: 8
  batch_size: 8
  n_workers: 10
  device: "cuda"
  learning_rate: 0.0001
  num_epochs: 250
  crop_size: [192, 192, 192]
  dicom_dirs: ["dicoms/Training set 2", /data/dicoms]
"""


class Payload:
    """Leaves a folder behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_config(folder: Path, name: str = "userconf.yml", **settings) -> Path:
    """Write the tiny settings, with some others laid over them, as a config file."""
    path = folder / name
    content = {"other_tool": {"x": 1}, "jaw_loc_config": TINY_SETTINGS | settings}
    path.write_text(yaml.safe_dump(content))
    return path


def lab_dicom(image: np.ndarray, mask: np.ndarray | None) -> Dataset:
    """Build a labelled DICOM in the lab's layout: implicit VR, no spacing, stray creator."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.NumberOfFrames, ds.Rows, ds.Columns = image.shape[:3]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    if mask is not None:
        ds.add_new(0x00BBB000, "LO", "LabelData")
        ds.add_new(0x00BBB001, "OB", mask.astype(np.uint8).tobytes())
    ds.add_new(0x7FE00010, "OW", image.astype("<u2").tobytes())
    return ds


def write_lab_dicom(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray | None,
    change: Callable[[Dataset], object] = lambda ds: None,
) -> None:
    ds = lab_dicom(image, mask)
    change(ds)
    ds.save_as(path, enforce_file_format=True)


def erase_labels(path: Path, *values: int) -> None:
    """Write a labelled DICOM anew, as if nobody had drawn these labels."""
    scan = open_labelled_dicom(path)
    assert scan.read_mask is not None
    slices = (0, scan.grid.shape_zyx[0])
    image, mask = scan.read_image(*slices), scan.read_mask(*slices)
    mask[np.isin(mask, values)] = 0
    write_labelled_dicom(path, image, mask, scan.grid)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, to see that nothing changed."""
    paths = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def only_sentence(result) -> str:
    """Return the one sentence on standard error with which a command refused its input.

    Notes on the settings and scans may come before it.
    """
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[0].removeprefix("Error: ")


def write_model(path: Path, objects: Sequence[str] = ("jaw",), seed: int = 0) -> Path:
    """Write a locator with fresh weights for scans of at least 24x12x12 voxels."""
    import torch

    from jawloc.inference.locator import Locator, save_locator
    from jawloc.training.intensity import IntensityConfig
    from jawloc.training.network import build_network
    from jawloc.training.provenance import NetworkRecord, Provenance
    from jawloc.training.splits import SPECIMEN_PATTERN
    from jawloc.training.stages import NetworkConfig

    torch.manual_seed(seed)
    config = NetworkConfig(coarse=1, channels=(4, 8), stride=2)
    network = build_network(config, len(objects))
    path.parent.mkdir(parents=True, exist_ok=True)
    labels: dict[str, Sequence[int] | None] = dict.fromkeys(objects)
    # a model that learned from nothing, and says so
    record = Provenance({}, (NetworkRecord({}, (2.0,)),), SPECIMEN_PATTERN, None)
    locator = Locator((network,), config, (24, 12, 12), IntensityConfig(), labels, ((2.0,),))
    save_locator(replace(locator, provenance=record), path)
    return path
