"""The networks: any size in, a heatmap of known place out; the lab's weights load."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import pytest
import torch
from monai.networks.nets import AttentionUnet

from jawloc.errors import InputError
from jawloc.training.device import choose_device
from jawloc.training.network import InstanceNorm, build_network
from jawloc.training.stages import NetworkConfig, heatmap_shape, to_heatmap_grid, to_image_grid

SMALL_UNETS = {
    f"unet, stride {stride}": NetworkConfig(
        name="unet", coarse=1, channels=(4, 8, 8), stride=stride
    )
    for stride in (1, 2, 4)
}
LAB = NetworkConfig(name="attention-unet")
ALL = SMALL_UNETS | {"attention-unet": LAB}
# odd, even, smaller than the deepest level's stride, and one voxel
SIZES = [(32, 16, 16), (33, 17, 9), (31, 20, 15), (16, 16, 16), (5, 6, 7), (1, 1, 1)]


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {name: build_network(config, n_objects=2) for name, config in ALL.items()}


def labs_own() -> torch.nn.Module:
    return AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=(8, 12, 16, 24, 32),
        strides=(2, 2, 2, 2, 1),
        kernel_size=5,
        dropout=0.15,
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_any_size_gives_a_heatmap_per_object_of_the_stated_shape(networks, name, size, training):
    """Guards sizes that no power of two divides, and norms that see one voxel at the bottom."""
    network = networks[name].train(training)
    with torch.no_grad():
        logits = network(torch.randn(1, 1, *size))
    assert tuple(logits.shape) == (1, 2, *heatmap_shape(size, ALL[name].heatmap_stride))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("config", "stride"),
    [(SMALL_UNETS["unet, stride 4"], 4), (SMALL_UNETS["unet, stride 2"], 2), (LAB, 1)],
)
def test_the_heatmap_is_so_many_times_coarser(config, stride):
    assert config.heatmap_stride == stride


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        ((512, 128, 128), 4, (128, 32, 32)),
        ((513, 127, 1), 4, (129, 32, 1)),
        ((9, 8, 7), 2, (5, 4, 4)),
        ((9, 8, 7), 1, (9, 8, 7)),
    ],
)
def test_heatmap_shape_rounds_up(size, stride, expected):
    assert heatmap_shape(size, stride) == expected


@pytest.mark.parametrize(
    ("stride", "image_voxel", "heatmap_voxel"),
    [(4, 1.5, 0.0), (4, 5.5, 1.0), (4, -0.5, -0.5), (2, 0.5, 0.0), (2, 3.0, 1.25), (1, 7.3, 7.3)],
)
def test_a_heatmap_voxel_lies_in_the_middle_of_the_image_voxels_that_it_covers(
    stride, image_voxel, heatmap_voxel
):
    points = torch.tensor([image_voxel] * 3)
    torch.testing.assert_close(to_heatmap_grid(points, stride), torch.tensor([heatmap_voxel] * 3))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_point_maps_are_inverse(stride):
    points = torch.rand(20, 2, 3, dtype=torch.float64) * 500
    there_and_back = to_image_grid(to_heatmap_grid(points, stride), stride)
    torch.testing.assert_close(there_and_back, points, atol=1e-6, rtol=0)


def test_one_seed_gives_one_set_of_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_network(SMALL_UNETS["unet, stride 2"], 1).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize("channels", [(1,), (1, 2), (3,), (7, 9, 5)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_any_channels_that_the_settings_allow_make_a_network(channels, stride):
    network = build_network(NetworkConfig(coarse=1, channels=channels, stride=stride), 1)
    logits = network(torch.randn(1, 1, 20, 12, 12))
    assert tuple(logits.shape[2:]) == heatmap_shape((20, 12, 12), stride)


def test_the_attention_unet_is_key_for_key_the_labs():
    ours, theirs = build_network(LAB, 1).state_dict(), labs_own().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_labs_bare_state_dict_loads_and_gives_the_same_output(tmp_path):
    torch.manual_seed(3)
    theirs = labs_own()
    theirs(torch.randn(2, 1, 32, 32, 32))  # so that BatchNorm's statistics aren't the initial ones
    torch.save(theirs.state_dict(), tmp_path / "lab.pth")
    ours = build_network(LAB, 1)
    ours.load_state_dict(torch.load(tmp_path / "lab.pth", weights_only=True))
    image = torch.randn(1, 1, 48, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=0, atol=0)


def test_our_attention_unet_weights_load_into_the_labs_network():
    torch.manual_seed(4)
    theirs, ours = labs_own(), build_network(LAB, 1).state_dict()
    theirs.load_state_dict(ours)
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.state_dict().items())


def test_the_attention_unet_really_has_kernels_of_5():
    """MONAI 1.3.0 took the argument and ignored it."""
    kernels = [
        tuple(weight.shape[2:])
        for name, weight in build_network(LAB, 1).state_dict().items()
        if re.search(r"\.conv\.[01]\.conv\.weight$", name)  # two of them on each of five levels
    ]
    assert kernels == [(5, 5, 5)] * 10


def test_cpu_is_the_cpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("gpus", "name", "expected", "warns"),
    [
        (0, "auto", "cpu", False),
        (0, "cuda", "cpu", True),
        (0, "cuda:1", "cpu", True),
        (1, "auto", "cuda", False),
        (1, "cuda", "cuda", False),
        (1, "cuda:0", "cuda:0", False),
        (1, "cuda:1", "cpu", True),
        (2, "cuda:1", "cuda:1", False),
        (1, "cpu", "cpu", False),
    ],
)
def test_a_gpu_that_is_not_there_is_replaced_by_the_cpu_with_a_warning(
    monkeypatch, gpus, name, expected, warns
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose_device(name) == torch.device(expected)
    assert [name in str(warning.message) for warning in caught] == [True] * warns


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CUDA", "mps", "meta", "cpu:cuda", "0"])
def test_any_other_device_is_refused_by_name(name):
    with pytest.raises(InputError, match=r"device: .*received") as caught:
        choose_device(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("size", [(32, 16, 16), (9, 8, 7), (20, 12, 12)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_network_whose_features_are_added_has_fewer_weights_and_the_same_heatmap(size, stride):
    torch.manual_seed(0)
    config = NetworkConfig(coarse=1, channels=(4, 8, 12), stride=stride)
    joined = build_network(replace(config, skip_connections="concatenate"), 2)
    added = build_network(replace(config, skip_connections="add"), 2)
    image = torch.randn(1, 1, *size)
    assert added(image).shape == joined(image).shape == (1, 2, *heatmap_shape(size, stride))
    count = [sum(p.numel() for p in network.parameters()) for network in (added, joined)]
    assert count[0] < count[1]
    # every level reaches the heatmap
    added(image).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in added.parameters() if p.ndim > 1)


@pytest.mark.parametrize("size", [(6, 5, 4), (1, 1, 2)])
def test_the_norm_of_a_prediction_is_that_of_the_training(size):
    torch.manual_seed(0)
    norm = InstanceNorm(3, affine=True)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    torch.nn.init.uniform_(norm.bias, -1, 1)
    features = torch.randn(4, 3, *size) * torch.tensor([1.0, 5.0, 0.2, 30.0]).view(4, 1, 1, 1, 1)
    features = features.contiguous(memory_format=torch.channels_last_3d)
    trained = norm(features).detach()
    with torch.inference_mode():
        predicted = norm(features)
    assert predicted.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(predicted, trained, rtol=1e-5, atol=1e-5)


def test_the_norm_is_exact_where_a_scan_is_mostly_of_one_grey_value():
    """Regression: PyTorch's batch norm, used for it, was off by a hundredth, in large ones by 1."""
    features = torch.full((1, 4, 128, 32, 32), 0.3)
    features[:, :, :40] += torch.randn(1, 4, 40, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.InstanceNorm3d(4).double()(features.double()).float()
    kept = features.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        normalised = InstanceNorm(4, affine=True)(kept)
    torch.testing.assert_close(normalised, exact, rtol=1e-5, atol=2e-5)


def test_mask_supervision_adds_a_channel_an_object():
    config = NetworkConfig(coarse=1, channels=(4, 8), stride=2, mask_supervision=True)
    network = build_network(config, 2)
    assert tuple(network(torch.randn(3, 1, 16, 8, 8)).shape) == (3, 4, 8, 4, 4)
    assert network.mask_share.tolist() == [0.0, 0.0]
