"""Checkpoints: an interrupted run goes on as if nothing had happened, and no code is ever run."""

from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path

import pytest
import torch

from jawloc.config.sigmas import decide_sigmas
from jawloc.errors import InputError
from jawloc.training.changed_scans import tell_changed_scans
from jawloc.training.checkpoint import (
    load_checkpoint,
    planned_epochs,
    read_weights_file,
    save_atomically,
    save_checkpoint,
)
from jawloc.training.loop import TrainingState
from jawloc.training.records import EpochRecord
from jawloc.training.stages import NetworkConfig
from tests.lab import Payload
from tests.training.blobs import (
    CURRICULUM,
    MOVED,
    NETWORK,
    blob_scans,
    fit,
    fresh_state,
    training_config,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN, VAL = blob_scans(4, seed=1), blob_scans(2, seed=2)
LAB = NetworkConfig(name="attention-unet")
SETTINGS = {"learning_rate": 0.01, "curriculum.threshold": 0.5, "num_epochs": 6, "objects": None}


TWO_STAGES = NetworkConfig(coarse=2, channels=(4, 8), stride=2, window=(16, 16, 16))


def go_on(state: TrainingState, config, network=NETWORK, epochs: int | None = None) -> None:
    """Train so many epochs (by default until it is finished) from where the state is."""
    sigmas = decide_sigmas(CURRICULUM, network)
    run = fit(state, TRAIN, VAL, config, sigmas, MOVED, network.stages())
    for _ in run if epochs is None else zip(range(epochs), run, strict=False):
        pass


def started(epochs: int = 1, **changes: object) -> TrainingState:
    config = training_config(**changes)
    state = fresh_state(config)
    go_on(state, config, epochs=epochs)
    return state


def without_seconds(records: list[EpochRecord]) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize(
    ("network", "num_epochs", "interrupted_after"),
    [
        (NETWORK, 8, 1),
        (NETWORK, 8, 3),
        (NETWORK, 8, 7),
        (NETWORK, 8, 8),
        (LAB, 2, 1),
        (TWO_STAGES, 4, 2),
    ],
)
def test_an_interrupted_and_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tmp_path, network, num_epochs, interrupted_after
):
    """Order of scans, augmentation, dropout, AdamW's moments, averages, sigma, the cooldown."""
    config = training_config(num_epochs=num_epochs, batch_size=2)
    path = tmp_path / "checkpoint.pt"
    sigmas = decide_sigmas(CURRICULUM, network)
    whole = fresh_state(config, network, sigmas)
    go_on(whole, config, network)

    first_part = fresh_state(config, network, sigmas)
    go_on(first_part, config, network, epochs=interrupted_after)
    save_checkpoint(path, first_part, SETTINGS, "run")
    resumed = fresh_state(config, network, sigmas)
    torch.manual_seed(999)  # another process would be anywhere in its random numbers
    load_checkpoint(path, resumed, SETTINGS)
    go_on(resumed, config, network)

    assert len(resumed.records) == num_epochs
    assert without_seconds(resumed.records) == without_seconds(whole.records)
    assert equal(resumed.network.state_dict(), whole.network.state_dict())
    assert equal(resumed.average.state_dict(), whole.average.state_dict())
    assert equal(resumed.best_weights, whole.best_weights)
    assert (resumed.best_epoch, resumed.curricula) == (whole.best_epoch, whole.curricula)


@pytest.mark.parametrize(
    ("network", "batches"), [(NETWORK, 1), (NETWORK, 4), (NETWORK, 6), (LAB, 1), (TWO_STAGES, 3)]
)
def test_a_run_that_stops_within_an_epoch_goes_on_bit_for_bit(tmp_path, network, batches):
    """Regression: Ctrl-C lost all of an epoch, which takes an hour where scans are many."""
    config = training_config(num_epochs=4, batch_size=2)  # two batches an epoch
    path = tmp_path / "checkpoint.pt"
    sigmas = decide_sigmas(CURRICULUM, network)
    whole = fresh_state(config, network, sigmas)
    go_on(whole, config, network)

    first_part, asked = fresh_state(config, network, sigmas), []

    def should_stop():
        asked.append(len(first_part.records))  # before each epoch, and after each batch
        return len(asked) - len(set(asked)) >= batches

    settings = {"should_stop": should_stop}
    list(fit(first_part, TRAIN, VAL, config, sigmas, MOVED, network.stages(), **settings))
    assert (first_part.unfinished is None) == (batches % 2 == 0)
    assert len(first_part.records) == batches // 2
    save_checkpoint(path, first_part, SETTINGS, "run")
    resumed = fresh_state(config, network, sigmas)
    torch.manual_seed(999)
    load_checkpoint(path, resumed, SETTINGS)
    go_on(resumed, config, network)

    assert without_seconds(resumed.records) == without_seconds(whole.records)
    assert equal(resumed.network.state_dict(), whole.network.state_dict())
    assert equal(resumed.best_weights, whole.best_weights)


def test_every_setting_that_differs_is_named_and_epochs_may_grow(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, started(), SETTINGS, "run")
    assert planned_epochs(path) == 6
    load_checkpoint(path, fresh_state(training_config()), SETTINGS | {"num_epochs": 7})
    changes = {"learning_rate": 0.02, "num_epochs": 7, "objects": 2, "device": "cuda"}
    with pytest.raises(InputError, match=r"learning_rate was 0\.01 .*; objects was") as caught:
        load_checkpoint(path, fresh_state(training_config()), SETTINGS | changes)
    assert "num_epochs" not in str(caught.value)


def test_saving_does_not_disturb_the_run(tmp_path):
    config = training_config(num_epochs=3)
    quiet, saved = fresh_state(config), fresh_state(config)
    go_on(quiet, config)
    for _ in fit(saved, TRAIN, VAL, config, CURRICULUM, MOVED, NETWORK.stages()):
        save_checkpoint(tmp_path / "checkpoint.pt", saved, SETTINGS, "run")
    assert without_seconds(quiet.records) == without_seconds(saved.records)


def test_the_run_id_comes_back(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", started(), SETTINGS, "0123abcd")
    run_id = load_checkpoint(tmp_path / "checkpoint.pt", fresh_state(training_config()), SETTINGS)
    assert run_id == "0123abcd"


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", started(), SETTINGS, "run")
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["records"][0]["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "key", "before", "now"),
    [
        ({"learning_rate": 0.02}, "learning_rate", "0.01", "0.02"),
        ({"curriculum.threshold": 1.0}, "curriculum.threshold", "0.5", "1.0"),
        ({"new.key": 3}, "new.key", "None", "3"),
        ({"num_epochs": 5}, "num_epochs", "6", "5 (num_epochs may only grow)"),
    ],
)
def test_other_settings_are_refused_by_key_and_values(tmp_path, changes, key, before, now):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, started(), SETTINGS, "run")
    fresh = fresh_state(training_config())
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, fresh, SETTINGS | changes)
    assert f"{key} was {before} and is now {now}" in str(caught.value)
    assert fresh.records == []  # refused before anything was taken over


LISTS = {  # of 23 scans, whose ids and keys are longer than an error can be
    "train_ids": " ".join(f"fish {n:02}:{n:012x}" for n in range(20)),
    "val_ids": "fish 20:000000000020 fish 21:000000000021",
    "test_ids": "fish 22:000000000022",
}


@pytest.mark.parametrize(
    ("key", "old", "new", "told"),
    [
        ("train_ids", "fish 17:000000000011 ", "", "scans no longer there: fish 17"),
        ("test_ids", "fish 22", "zebra:0123456789ab fish 22", "scans new: zebra"),
        ("train_ids", "000000000012", "0123456789ab", "scans changed: fish 18"),
        (
            "train_ids",
            LISTS["train_ids"],
            "fish 00:000000000000",
            "scans no longer there: fish 01, fish 02, fish 03 and 16 more",
        ),
    ],
    ids=["removed", "added", "drawn anew", "many"],
)
def test_the_scans_that_differ_are_named_and_no_others(tmp_path, key, old, new, told):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, started(), SETTINGS | LISTS, "run")
    changed = SETTINGS | LISTS | {key: LISTS[key].replace(old, new)}
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, fresh_state(training_config()), changed)
    assert str(caught.value).endswith(f"began with; {told}")


def test_scans_that_are_used_otherwise_are_named_with_their_use():
    now = {"train_ids": f"{LISTS['train_ids']} fish 20:000000000020"}
    now |= {"val_ids": "fish 21:000000000021", "test_ids": LISTS["test_ids"]}
    assert tell_changed_scans(LISTS, now) == "train_ids is now with fish 20"
    assert tell_changed_scans(LISTS, LISTS) == ""


def test_scans_in_another_order_are_no_small_change():
    """Which scans make a batch is drawn by their numbers."""
    now = LISTS | {"val_ids": "fish 21:000000000021 fish 20:000000000020"}
    assert tell_changed_scans(LISTS, now) == "val_ids is now in another order"
    assert tell_changed_scans({"corrected": "3 (a)"}, {"corrected": "3 (b)"}) == ""


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"n_workers": 1}, {"dicom_dirs": ["x"]}])
def test_settings_that_change_no_number_may_differ(tmp_path, changes):
    """For instance a run that moves to a machine with another GPU, or is to go on for longer."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, started(), SETTINGS, "run")
    assert load_checkpoint(path, fresh_state(training_config()), SETTINGS | changes) == "run"


@pytest.mark.parametrize("written_by", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, written_by):
    path, trace = tmp_path / "model.pth", tmp_path / "was_run"
    if written_by == "torch":
        torch.save({"state_dict": Payload(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(trace), protocol=2))
    with pytest.raises(InputError, match=r"^model\.pth: not a model file of plain weights"):
        read_weights_file(path)
    assert not trace.exists()


def test_the_payload_would_have_run(tmp_path):
    """Shows that the test above can fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "was_run")))
    assert (tmp_path / "was_run").exists()


def whole_checkpoint(folder: Path) -> bytes:
    save_checkpoint(folder / "whole.pt", started(), SETTINGS, "run")
    return (folder / "whole.pt").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a checkpoint", lambda b: b[100:]],
    ids=["cut off", "empty", "text", "no beginning"],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(whole_checkpoint(tmp_path)))
    with pytest.raises(InputError, match=r"^checkpoint\.pt: not a model file") as caught:
        load_checkpoint(path, fresh_state(training_config()), SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_weight_that_does_not_fit_its_checksum_is_refused(tmp_path):
    torch.save({"weight": torch.full((64,), 0.5)}, tmp_path / "m.pth")
    content = (tmp_path / "m.pth").read_bytes()
    at = content.index(torch.full((64,), 0.5).numpy().tobytes())
    (tmp_path / "m.pth").write_bytes(content[:at] + b"\1" + content[at + 1 :])
    assert torch.load(tmp_path / "m.pth", weights_only=True)  # takes it as it is
    with pytest.raises(InputError, match=r"^m\.pth: not a model file"):
        read_weights_file(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "content", [{"state_dict": {}}, {"weight": torch.zeros(2)}, {"optimizer": {}, "settings": {}}]
)
def test_weights_that_are_no_checkpoint_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"^other\.pth: not a checkpoint"):
        load_checkpoint(tmp_path / "other.pth", fresh_state(training_config()), SETTINGS)


def test_a_file_that_holds_no_mapping_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="holds a mapping, not Tensor"):
        read_weights_file(tmp_path / "tensor.pth")


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none.pth"
    with pytest.raises(InputError, match=re.escape(f"{path}: no such model file")):
        read_weights_file(path)


def test_a_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    """Writing is atomic: a full disk or Ctrl-C never leaves half a checkpoint."""
    path = tmp_path / "checkpoint.pt"
    save_atomically({"epoch": 1}, path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_atomically({"epoch": 2, "cannot be written": lambda: None}, path)
    assert read_weights_file(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("kind", ["jawloc-checkpoint-1", "jawloc-checkpoint-2", "jawloc-folds-2"])
def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_sentence(tmp_path, kind):
    torch.save({"format": kind, "settings": {}, "run_id": "r"}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="begun by an earlier version of jawloc") as caught:
        load_checkpoint(tmp_path / "checkpoint.pt", fresh_state(training_config()), SETTINGS)
    assert "\n" not in str(caught.value)


def test_the_random_numbers_of_every_gpu_go_on_too(tmp_path, monkeypatch):
    """Dropout on a GPU draws from them; a machine with fewer GPUs takes what it can."""
    gpus = [torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3, 4], dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [g.clone() for g in gpus])

    def set_state(state, device):
        gpus[device] = state

    monkeypatch.setattr(torch.cuda, "set_rng_state", set_state)
    path, state = tmp_path / "checkpoint.pt", fresh_state(training_config())
    save_checkpoint(path, state, SETTINGS, "run")
    gpus[:] = [torch.zeros(2, dtype=torch.uint8)] * 2
    load_checkpoint(path, fresh_state(training_config()), SETTINGS)
    assert [gpu.tolist() for gpu in gpus] == [[1, 2], [3, 4]]
    gpus[:] = [torch.zeros(2, dtype=torch.uint8)]
    load_checkpoint(path, fresh_state(training_config()), SETTINGS)
    assert [gpu.tolist() for gpu in gpus] == [[1, 2]]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    load_checkpoint(path, fresh_state(training_config()), SETTINGS)  # nor does it need any


def test_each_objects_numbers_come_back(tmp_path):
    path, state = tmp_path / "checkpoint.pt", started()
    record = state.records[0]
    several = {"left": record.val, "lower jaw": record.train}
    val = dataclasses.replace(record.val, by_object=several)
    state.records = [dataclasses.replace(record, val=val)]
    save_checkpoint(path, state, SETTINGS, "run")
    resumed = fresh_state(training_config())
    load_checkpoint(path, resumed, SETTINGS)
    assert resumed.records == state.records


def test_the_same_content_gives_the_same_file_whatever_its_name(tmp_path):
    """Regression: a model that was saved again had another digest, and became a new version."""
    files = [tmp_path / name for name in ("a.pth", "a.pth", "another.pth")]
    saved = []
    for path in files:
        save_atomically({"weights": torch.arange(3.0), "sigma": 1.5}, path)
        saved.append(path.read_bytes())
    assert saved[0] == saved[1] == saved[2]
