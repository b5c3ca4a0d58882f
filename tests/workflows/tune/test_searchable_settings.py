"""What a space names takes effect in every trial that has it, or is refused before the first."""

import weakref
from types import SimpleNamespace

import optuna
import pytest
from optuna import TrialPruned
from optuna.trial import FixedTrial

import jawloc.workflows.train as experiment
from jawloc.config import change_config, load_config
from jawloc.config.keys import NESTED, known_keys
from jawloc.errors import InputError
from jawloc.workflows.prepare_data import prepare_data
from jawloc.workflows.tune import trial as module
from jawloc.workflows.tune.search_space import Range, Space, parameter
from jawloc.workflows.tune.searchable_settings import SHARED, TAKES_EFFECT, WITHOUT_EFFECT
from jawloc.workflows.tune.study import StudyConfig
from jawloc.workflows.tune.trial import Task, set_up
from tests.lab import write_config

SETTINGS = {
    "num_epochs": 2,
    "cpu_threads": 1,
    "batch_size": 2,
    "learning_rate_schedule": "cooldown",
    "best_epoch_from": "last",
    "warmup_epochs": 1,
    "cooldown_share": 0.3,
    "weight_decay": 0.1,
    "network": {"channels": [4, 8], "stride": 1, "coarse": 2, "window": [16, 16, 16]},
    "curriculum": {"threshold": 2.0, "minimum_sigma": 1.0, "stop_patience": 1},
}
# One other value for each setting that a space may name.
OTHERS = {
    "initial_kernel_size": 3.5,
    "batch_size": 3,
    "learning_rate": 0.002,
    "learning_rate_schedule": "constant",
    "warmup_epochs": 3,
    "cycle_steps": 1,
    "cooldown_share": 0.8,
    "weight_decay": 0.5,
    "weight_average_epochs": 0.0,
    "loss": "mse",
    "seed": 1,
    "curriculum.minimum_sigma": 1.5,
    "curriculum.shrink_factor": 0.5,
    "curriculum.trigger": "loss",
    "curriculum.threshold": 0.01,
    "curriculum.patience": 3,
    "curriculum.stop_patience": 0,
    "least_steps": 1000,
    "curriculum.coarse_initial_sigma": 5.0,
    "curriculum.coarse_minimum_sigma": 6.5,
    "curriculum.fine_initial_sigma": 2.0,
    "network.name": "attention-unet",
    "network.channels": [4, 4],
    "network.stride": 2,
    "network.coarse": 1,
    "network.coarse_stride": 1,
    "network.window": [16, 16, 20],
    "network.skip_connections": "concatenate",
    "mask_supervision": False,
    "augmentation.enabled": False,
    "augmentation.flip_axes": ["y"],
    "augmentation.rotation_degrees_zyx": [10.0, 0.0, 0.0],
    "augmentation.scale": 0.3,
    "augmentation.shift": 0.02,
    "augmentation.gain": 0.6,
    "augmentation.offset": 0.5,
    "augmentation.gamma": 0.9,
    "augmentation.noise": 0.4,
    "intensity.rule": "raw",
    "intensity.low": 30.0,
    "intensity.high": 70.0,
}
# What a setting needs beside it, in both trainings.
BESIDE = {
    "intensity.rule": {"augmentation.gamma": 0.0, "augmentation.offset": 0.0}
    | {"augmentation.noise": 0.0},
    "network.name": {"network.coarse": 1},
    "cycle_steps": {"learning_rate_schedule": "one-cycle"},
    "cooldown_share": {"num_epochs": 6},  # in two epochs, every share is the last one
    # the fine stage's sigma is at its end from the start here
    **{
        f"curriculum.{name}": {"network.coarse": 1}
        for name in ("trigger", "threshold", "shrink_factor", "patience")
    },
    # so that an epoch is worse than the last, and only what the cooldown gives is compared
    **dict.fromkeys(
        ("curriculum.stop_patience", "least_steps"),
        {"initial_kernel_size": 1.0, "learning_rate": 0.05}
        | {"best_epoch_from": "cooldown", "num_epochs": 12},
    ),
}


@pytest.fixture(scope="module")
def bench(make_lab, tmp_path_factory):
    lab = make_lab(tmp_path_factory.mktemp("effects") / "lab")
    config = load_config(write_config(lab, **SETTINGS))
    prepare_data(config)
    return set_up(Task(config, Space("s", {}), StudyConfig("s"), "run"), "t", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def unlogged():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "log_inputs", lambda *_: None)
        patch.setattr(module, "draw_epoch", lambda *_: None)
        patch.setattr(module, "log_epoch", lambda *_: None)
        yield


def error_of(bench, values):
    """Return the objective of a trial with these values."""
    config = change_config(bench.task.config, values, source="s")
    run = SimpleNamespace(log_summary=lambda _: None, tag=lambda _: None)
    trial = FixedTrial({})
    return module._train(trial, bench, config, bench.data, run, compare_epochs=False)


@pytest.fixture(scope="module")
def own_error(bench):
    known = {}

    def error(values):
        key = tuple(sorted(values.items()))
        if key not in known:
            known[key] = error_of(bench, values)
        return known[key]

    return error


@pytest.mark.parametrize("key", sorted(TAKES_EFFECT))
def test_a_setting_that_may_be_searched_changes_the_validation_error(bench, own_error, key):
    """Regression: `intensity.*` was the study's own in every trial."""
    both = BESIDE.get(key, {})
    assert error_of(bench, both | {key: OTHERS[key]}) != own_error(both)


def test_another_intensity_is_loaded_once_the_last_one_is_gone(bench, monkeypatch):
    """Even where the last trial was pruned, whose exception holds what it worked on."""
    load, live, calls = module.load_scans, [], []

    def watched(examples, intensity, budget, objects):
        assert all(reference() is None for reference in live)
        scans = load(examples, intensity, budget, objects)
        live.append(weakref.ref(scans.images))
        calls.append(intensity.low)
        return scans

    monkeypatch.setattr(module, "load_scans", watched)
    error_of(bench, {"intensity.low": 11.0, "num_epochs": 1})
    study = optuna.create_study()

    def pruned(_):
        config = change_config(bench.task.config, {"intensity.low": 12.0}, source="s")
        scans = bench.scans(config, bench.data).select(bench.data.split.train_ids)
        assert len(scans.ids) == 3
        raise TrialPruned

    study.optimize(pruned, n_trials=2)
    error_of(bench, {"intensity.low": 13.0, "num_epochs": 1})
    error_of(bench, {"intensity.low": 13.0, "num_epochs": 1, "seed": 3})
    assert calls == [11.0, 12.0, 13.0]


def test_a_worker_holds_its_scans_once(bench, monkeypatch):
    """Regression: training and validation scans were copies beside those that they came from."""
    seen, whole = [], experiment.fit

    def fit(state, train, val, *others):
        scans = bench.loaded[1].images
        storages = {
            s.untyped_storage().data_ptr(): s.nbytes for s in (scans, train.images, val.images)
        }
        seen.append(sum(storages.values()))
        yield from whole(state, train, val, *others)

    monkeypatch.setattr(experiment, "fit", fit)
    error_of(bench, {"num_epochs": 1})
    # bytes a voxel, scans (three train, one validates), and the image alone or its mask, too
    channels = 1 + (bench.task.config.network.mask_supervision is True)
    assert seen == [4 * 4 * 24 * 12 * 12 * channels]


# --- what may be searched ------------------------------------------------------------------------


def refusal(searched, config=None):
    """Return the sentence with which a space is refused, by its file or by its check."""
    with pytest.raises(InputError) as error:
        space = Space("s.yml", {key: parameter("s.yml", key, searched[key]) for key in searched})
        assert config is not None, "the file alone was not refused"
        space.check(config)
    sentence = str(error.value)
    assert sentence.startswith("s.yml: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("key", sorted(known_keys() | SHARED | {*WITHOUT_EFFECT, *TAKES_EFFECT}))
def test_every_setting_is_in_one_class(key):
    assert key in known_keys() | {"objects"}
    classes = [key in some for some in (NESTED, SHARED, WITHOUT_EFFECT, TAKES_EFFECT)]
    assert sum(classes) == 1
    assert (key in OTHERS) is (key in TAKES_EFFECT)


@pytest.mark.parametrize("key", sorted({*SHARED, "objects.x"}))
def test_what_trials_share_is_refused(key):
    expected = f"s.yml: {key} is the same for all trials; change it with --set"
    assert refusal({key: [1, 2]}) == expected


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_what_comes_after_the_training_is_refused(key):
    """Regression: `presence.steps` could be searched and "had no effect"."""
    said = refusal({key: {"low": 1, "high": 100}})
    assert said.startswith(f"s.yml: {key} can't change the validation error")


@pytest.mark.parametrize("value", [["unet"], {"low": 1, "high": 2}, {"stride": [2, 4]}, 4, None])
@pytest.mark.parametrize("section", sorted(NESTED))
def test_a_section_is_refused_with_what_it_holds(section, value):
    """Regression: a KeyError, or a complaint about low and high."""
    said = refusal({section: value})
    assert said.startswith(f"s.yml: {section} is a section, and a space names single settings")
    own = [k for k in TAKES_EFFECT if k.startswith(f"{section}.")]
    assert all(k in said for k in own)


@pytest.mark.parametrize(
    ("searched", "sentence"),
    [
        ({"network.stide": [2]}, "unknown key 'network.stide'; the nearest valid key is "),
        ({"network.stride.x": [2]}, "unknown key 'network.stride.x'"),
        ({"curriculum.initial_sigma": [2]}, "the nearest valid key is 'initial_kernel_size'"),
        ({3: [2]}, "unknown key '3'"),
    ],
)
def test_a_key_that_is_none_is_refused(searched, sentence):
    assert sentence in refusal(searched)


@pytest.mark.parametrize(
    ("searched", "settings", "needs"),
    [
        ({"network.window": [[16, 16, 16], [32, 32, 32]]}, {"network.coarse": 1}, "network.coarse"),
        ({"network.stride": [1, 2]}, {"network.name": "attention-unet"}, "network.name unet"),
        ({"augmentation.gain": [0.1, 0.2]}, {"augmentation.enabled": False}, "enabled true"),
        ({"cooldown_share": [0.1, 0.2]}, {"learning_rate_schedule": "constant"}, "cooldown"),
        ({"least_steps": [1, 2]}, {"learning_rate_schedule": "one-cycle"}, "may end early"),
        ({"curriculum.threshold": [1, 2]}, {"curriculum.shrink_factor": 1.0}, "that shrinks"),
        ({"curriculum.patience": [1, 2]}, {"initial_kernel_size": 1.0}, "that shrinks"),
        (
            {"intensity.low": [1.0, 2.0], "augmentation.enabled": [False]},
            {
                "intensity.rule": "raw",
                **dict.fromkeys(["augmentation.gamma", "augmentation.offset"], 0.0),
                "augmentation.noise": 0.0,
            },
            "intensity.rule percentile",
        ),
    ],
)
def test_a_setting_that_counts_in_no_trial_is_refused(bench, searched, settings, needs):
    if settings.get("network.name") == "attention-unet":
        settings = settings | {"network.coarse": 1}
    config = change_config(bench.task.config, settings, source="s")
    said = refusal(searched, config)
    assert f"{next(iter(searched))} takes effect only with " in said
    assert needs in said
    # with the other setting searched too, some trials have what it needs
    other = next(iter(settings))
    values = [settings[other], change_config(bench.task.config, {}, source="s").as_params()[other]]
    if other not in ("network.name", "intensity.rule"):
        both = {**searched, other: values}
        Space("s.yml", {k: parameter("s.yml", k, v) for k, v in both.items()}).check(config)


def test_a_whole_number_between_the_ends_that_no_training_can_have_is_found(bench):
    """Regression: 3 is no stride, but only 1 and 4 were tried."""
    searched = {"network.stride": {"low": 1, "high": 4}}
    said = refusal(searched, bench.task.config)
    assert "with network.stride 3, network.stride must be auto, 1, 2 or 4; received 3" in said
    assert parameter("s", "network.stride", {"low": 1, "high": 2}) == Range(1, 2)
