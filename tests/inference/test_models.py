"""Models of every kind: jawloc's own, the lab's bare weights, and what is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import AttentionUnet

from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.decode import decode
from jawloc.inference.locator import Localisation
from jawloc.inference.models import ModelOptions, file_digest, load_model
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from tests.lab import write_model

SIZE = (32, 16, 16)
LAB = ModelOptions("attention-unet", SIZE)


def lab_network() -> AttentionUnet:
    """Build the lab's network as the lab does."""
    torch.manual_seed(1)
    return AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=(8, 12, 16, 24, 32),
        strides=(2, 2, 2, 2, 1),
        kernel_size=5,
        dropout=0.15,
    )


@pytest.fixture
def lab_file(tmp_path) -> Path:
    torch.save(lab_network().state_dict(), tmp_path / "lab.pth")
    return tmp_path / "lab.pth"


# --- the lab's -----------------------------------------------------------------------


def test_bare_weights_find_what_monais_own_network_finds(tmp_path, lab_file):
    """Raw grey values in, softmax out, its peak carried to the full-size scan."""
    image = np.random.default_rng(0).integers(0, 2000, (64, 32, 48)).astype(np.uint16)
    grid = Grid(image.shape, (0.02, 0.03, 0.04))
    write_labelled_dicom(tmp_path / "131.dcm", image, np.zeros_like(image), grid)
    small = downsample_image(open_scan(tmp_path / "131.dcm"), SIZE)
    with torch.inference_mode():
        logits = lab_network().eval()(torch.from_numpy(small.astype(np.float32))[None, None])
    expected = decode(logits, sigma_voxels=1.0).points[0].numpy()
    by_hand = map_points(expected, Grid(SIZE), grid)

    locator = load_model(lab_file, LAB)
    softmax = torch.softmax(logits.flatten(), 0).reshape(SIZE).numpy()
    np.testing.assert_allclose(locator.predict(small).probability[0], softmax, rtol=1e-3)
    (found,) = locator.locate(tmp_path / "131.dcm")
    assert found.object_name == "jaw"
    assert found.point_voxels == pytest.approx(by_hand[0], abs=1e-3)
    assert found.point_mm == pytest.approx(by_hand[0] * (0.02, 0.03, 0.04), abs=1e-4)


def test_bare_weights_are_left_alone_by_any_intensity_rule(lab_file):
    locator = load_model(lab_file, LAB)
    assert locator.intensity.rule == "raw"
    assert locator.downsampled_size == SIZE
    assert not locator.networks[0].training
    for name, weight in lab_network().state_dict().items():
        assert torch.equal(locator.networks[0].state_dict()[name], weight)


def test_the_object_of_bare_weights_can_be_named(lab_file):
    model_options = ModelOptions("attention-unet", SIZE, ("lower jaw",))
    assert dict(load_model(lab_file, model_options).objects) == {"lower jaw": None}


@pytest.mark.parametrize(
    ("model_options", "message"),
    [
        (ModelOptions(), "add --network attention-unet --downsampled-size Z,Y,X"),
        (ModelOptions("attention-unet"), "add --network attention-unet --downsampled-size Z,Y,X"),
        (ModelOptions(None, SIZE), "add --network attention-unet --downsampled-size Z,Y,X"),
        (ModelOptions("unet", SIZE), "can only be an attention-unet's; received --network unet"),
        (ModelOptions("attention-unet", SIZE, ("a", "b")), "an output for each of 2 object"),
    ],
)
def test_bare_weights_with_other_options_are_refused(lab_file, model_options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(lab_file, model_options)
    assert str(caught.value).startswith("lab.pth: ")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"^x\.pth: the weights must be those of the lab's"):
        load_model(tmp_path / "x.pth", LAB)


# --- jawloc's ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, lab_file, value):
    weights = torch.load(lab_file, weights_only=True)
    next(iter(weights.values()))[:] = value
    torch.save(weights, lab_file)
    with pytest.raises(InputError, match=r"^lab\.pth: the weights must be .* and finite"):
        load_model(lab_file, LAB)


def test_a_locator_that_fits_the_options_is_loaded(tmp_path):
    path = write_model(tmp_path / "a.pth", ("upper", "lower"))
    for model_options in (ModelOptions(), ModelOptions("unet", (24, 12, 12), ("lower",))):
        assert list(load_model(path, model_options).objects) == ["upper", "lower"]


@pytest.mark.parametrize(
    ("model_options", "message"),
    [
        (
            ModelOptions(downsampled_size=(512, 128, 128)),
            "asks for 512×128×128; the model's grid is 24×",
        ),
        (ModelOptions("attention-unet"), "--network asks for attention-unet; the model is a unet"),
        (
            ModelOptions(objects=("otolith",)),
            r"must name what the model finds \(jaw\); received 'otolith",
        ),
    ],
)
def test_a_locator_that_is_something_else_is_refused(tmp_path, model_options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(write_model(tmp_path / "a.pth"), model_options)
    assert str(caught.value).startswith("a.pth: ")


def test_objects_come_in_the_order_of_the_options():
    found = [Localisation("a", name, (0.0, 0.0, 0.0), None, 1.0) for name in ("x", "y", "z")]
    assert [f.object_name for f in ModelOptions(objects=("z", "x")).select(found)] == ["z", "x"]
    assert ModelOptions().select(found) == found


# --- no model ------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("protocol", ["pickle", "torch"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    if protocol == "pickle":
        Path("x.pth").write_bytes(pickle.dumps({"weight": Bomb()}))
    else:
        torch.save({"weight": Bomb()}, "x.pth")
    with pytest.raises(InputError, match=r"^x\.pth: .*code, which is never run"):
        load_model(Path("x.pth"), LAB)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "content", [{}, {"format": "jawloc-checkpoint-1"}, {"a": 3}, {"a": {"b": torch.zeros(1)}}]
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"^x\.pth: a model must be a jawloc locator or bare"):
        load_model(tmp_path / "x.pth", LAB)


def test_the_digest_changes_with_the_weights(tmp_path):
    first, same, other = (write_model(tmp_path / f"{n}.pth", seed=n // 2) for n in range(3))
    assert file_digest(first) != file_digest(other)
    assert len(file_digest(same)) == 64
