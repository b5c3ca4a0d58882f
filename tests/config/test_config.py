"""userconf.yml: the lab's own file works, and one sentence names whatever is wrong in a file."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml

from jawloc.config import LAB_RECIPE, change_config, check_config, load_config
from jawloc.config.keys import known_keys
from jawloc.config.messages import RULES
from jawloc.config.sigmas import tell_sigmas
from jawloc.errors import InputError
from jawloc.training.device import choose_device
from tests.lab import LAB_CONFIG


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a config file: settings of jaw_loc_config, or a whole text."""

    def write(content, name="userconf.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump({"jaw_loc_config": content})
        path.write_text(text)
        return path

    return write


def refusal(path, **layers):
    """Return the sentence with which a config is refused."""
    with pytest.raises(InputError) as refused:
        load_config(path, **layers)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


# --- the lab's file ------------------------------------------------------------------------------


def test_the_labs_own_file_works_unchanged(written):
    path = written(LAB_CONFIG)
    config = load_config(path)
    assert config.cache.downsampled_dicom_size == (512, 128, 128)
    assert config.curriculum.initial_sigma_voxels == 8  # its initial_kernel_size
    assert config.training.batch_size == 8
    assert config.cache.n_workers == 10
    assert config.training.device == "cuda"
    assert config.training.learning_rate == 0.0001
    assert config.training.num_epochs == 250
    assert config.crop.crop_size == (192, 192, 192)
    assert config.cache.dicom_dirs == (
        str(path.parent / "dicoms" / "Training set 2"),
        "/data/dicoms",
    )
    assert config.base == path.parent


def test_cuda_on_a_machine_without_it_is_the_cpu_with_a_warning(written, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = load_config(written(LAB_CONFIG))
    with pytest.warns(UserWarning, match="no CUDA GPUs: using the CPU"):
        assert choose_device(config.training.device) == torch.device("cpu")


def test_the_repositorys_own_file_holds_nothing_that_is_not_a_key():
    config = load_config(Path(__file__).parents[2] / "userconf.yml")
    assert config.cache.downsampled_dicom_size == (512, 128, 128)
    assert config.training.device == "auto"


def test_an_empty_mapping_gives_every_default(written):
    config = load_config(written({}))
    assert config.split.validation_scans == config.split.test_scans == 1
    assert config.cache.objects == {"jaw": None}


@pytest.mark.parametrize("section", ["curriculum", "network", "augmentation", "intensity"])
def test_a_section_whose_lines_are_all_commented_out_has_its_defaults(written, section):
    text = f"jaw_loc_config:\n  {section}:\n    # nothing\n"
    assert load_config(written(text)) == load_config(written({}))


# --- unknown keys --------------------------------------------------------------------------------

UNKNOWN = [
    ({"learning_rat": 1}, "learning_rat", "learning_rate"),
    ({"lr": 1}, "lr", "learning_rate"),
    ({"epochs": 1}, "epochs", "num_epochs"),
    ({"Learning_Rate": 1}, "Learning_Rate", "learning_rate"),
    ({"threshold": 1}, "threshold", "curriculum.threshold"),  # in the wrong section
    ({"sigma": 1}, "sigma", "curriculum.minimum_sigma"),
    ({"initial_sigma": 1}, "initial_sigma", "initial_kernel_size"),
    ({"curriculum": {"initial_sigma": 1}}, "curriculum.initial_sigma", "initial_kernel_size"),
    ({"curriculum": {"treshold": 1}}, "curriculum.treshold", "curriculum.threshold"),
    ({"curriculum": {"learning_rate": 1}}, "curriculum.learning_rate", "learning_rate"),
    ({"network": {"chanels": [4]}}, "network.chanels", "network.channels"),
    ({"learning_rate": {"x": 1}}, "learning_rate.x", "learning_rate"),
    ({"crop_sizes": 1, "seed": -1}, "crop_sizes", "crop_size"),
]


@pytest.mark.parametrize(("settings", "key", "nearest"), UNKNOWN)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(written, settings, key, nearest):
    expected = f"userconf.yml: unknown key {key!r}; the nearest valid key is {nearest!r}"
    assert refusal(written(settings)) == expected
    assert nearest in known_keys()


def test_a_key_that_yaml_did_not_read_as_text_is_named_too(written):
    text = "jaw_loc_config:\n  on: 3\n"  # YAML's `on` is true
    assert refusal(written(text)).startswith("userconf.yml: unknown key 'True'")


# --- keys of earlier versions --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "source", "given", "current"),
    [
        ("file", "userconf.yml", {"presence": {"steps": 7}}, ".steps"),
        ("experiment", "e.yml", {"presence": {"steps": 7}}, ".steps"),
        ("override", "--set", "presence.steps=7", ".steps"),
        ("override", "--set", "presence={steps: 7}", ".steps"),
        ("file", "userconf.yml", {"presence": None}, ""),  # all its lines are commented out
    ],
)
def test_a_renamed_section_still_works_with_one_warning(written, place, source, given, current):
    path = written(given if place == "file" else {"presence_classifier": {"steps": 5}})
    experiment = written(given, "e.yml") if place == "experiment" else None
    overrides = [given] if place == "override" else []
    with pytest.warns(UserWarning) as warned:
        config = load_config(path, experiment=experiment, overrides=overrides)
    assert [str(warning.message) for warning in warned] == [
        f"{source}: presence{current} is now called presence_classifier{current}; "
        f"the old name still works"
    ]
    assert config.presence_classifier.steps == (7 if current else 600)


def test_a_mistake_below_an_old_name_is_named_by_the_new_one(written):
    with pytest.warns(UserWarning, match="presence_classifier"):
        assert refusal(written({"presence": {"steps": -1}})) == (
            "userconf.yml: presence_classifier.steps must be at least 0; received -1"
        )
    with pytest.warns(UserWarning, match="presence_classifier"):
        assert refusal(written({"presence": {"stepz": 1}})) == (
            "userconf.yml: unknown key 'presence_classifier.stepz'; the nearest valid key is "
            "'presence_classifier.steps'"
        )


# --- wrong types and values ----------------------------------------------------------------------

SIZE = "three whole numbers of voxels [z, y, x], in brackets, each at least"
SCANS = "a number of scans, at least 1, or a list of scan ids"
OBJECTS = (
    "a mapping from each object's name to its label value (1 to 255) or a list of them, "
    "or to null for every label"
)
# what stands in the file, and the sentence after the file's name
WRONG = [
    # YAML reads these numbers as text
    (
        "learning_rate: 1e-3",
        "learning_rate must be a number; received '1e-3', which YAML takes for text: write 0.001",
    ),
    (
        "weight_decay: 1e-7",
        "weight_decay must be a number; received '1e-7', which YAML takes for text: write 1.0e-07",
    ),
    (
        "curriculum: {threshold: 5e-1}",
        "curriculum.threshold must be a number; "
        "received '5e-1', which YAML takes for text: write 0.5",
    ),
    (
        "batch_size: '8'",
        "batch_size must be a whole number; received '8', which YAML takes for text: write 8",
    ),
    (
        "num_epochs: 1e3",
        "num_epochs must be a whole number; received '1e3', which YAML takes for text: write 1000",
    ),
    (
        "batch_size: '12345678901234567891'",
        "batch_size must be a whole number; received '12345678901234567891', which YAML takes for "
        "text: write 12345678901234567891",
    ),
    (
        "seed: 99999999999999999999",
        "seed must be at most 4294967295; received 99999999999999999999",
    ),
    # other types
    ("learning_rate: fast", "learning_rate must be a number; received 'fast'"),
    (
        "learning_rate: 0,003",
        "learning_rate must be a number; received '0,003'; with a decimal point: 0.003",
    ),
    ("learning_rate:", "learning_rate must be a number; received nothing"),
    ("learning_rate: [0.1]", "learning_rate must be a number; received [0.1]"),
    (
        "initial_kernel_size: eight",
        "initial_kernel_size must be auto, or a number of downsampled voxels greater than 0; "
        "received 'eight'",
    ),
    ("batch_size: 2.5", "batch_size must be a whole number; received 2.5"),
    ("batch_size: true", "batch_size must be a whole number; received true"),
    ("seed: 1.5", "seed must be a whole number; received 1.5"),
    ("augmentation: {enabled: 1}", "augmentation.enabled must be true or false; received 1"),
    ("cache_dir: 3", "cache_dir must be a text; received 3"),
    ("cache_dir: ''", "cache_dir must be a text of at least one character; received ''"),
    ("device: 0", "device must be auto, cpu, cuda or cuda:N; received 0"),
    (
        "dicom_dirs: dicoms",
        "dicom_dirs must be a list of folders, such as [dicoms/labelled]; received 'dicoms'",
    ),
    (
        "dicom_dirs: [1]",
        "dicom_dirs must be a list of folders, such as [dicoms/labelled]; received [1]",
    ),
    # sections that are none
    ("curriculum: 5", "curriculum must be a mapping of settings; received 5"),
    ("augmentation: no", "augmentation must be a mapping of settings; received false"),
    ("intensity: [raw]", "intensity must be a mapping of settings; received ['raw']"),
    ("network: 3", "network must be a mapping of settings; received 3"),
    # out of range
    ("learning_rate: 0", "learning_rate must be greater than 0; received 0"),
    ("learning_rate: 1", "learning_rate must be less than 1; received 1"),
    ("batch_size: 0", "batch_size must be at least 1; received 0"),
    ("num_epochs: -1", "num_epochs must be at least 1; received -1"),
    ("seed: -1", "seed must be at least 0; received -1"),
    (
        "initial_kernel_size: -8",
        "initial_kernel_size must be auto, or a number of downsampled voxels greater than 0; "
        "received -8",
    ),
    (
        "curriculum: {shrink_factor: 1.1}",
        "curriculum.shrink_factor must be at most 1; received 1.1",
    ),
    ("curriculum: {patience: 0}", "curriculum.patience must be at least 1; received 0"),
    ("intensity: {high: 101}", "intensity.high must be at most 100; received 101"),
    ("augmentation: {scale: 0.9}", "augmentation.scale must be less than 0.9; received 0.9"),
    # not finite
    ("learning_rate: .nan", "learning_rate must be finite; received nan"),
    ("initial_kernel_size: .inf", "initial_kernel_size must be finite; received inf"),
    ("augmentation: {noise: -.inf}", "augmentation.noise must be finite; received -inf"),
    (
        "augmentation: {rotation_degrees_zyx: [0, .nan, 0]}",
        "augmentation.rotation_degrees_zyx must be finite; received [0, nan, 0]",
    ),
    # one of a few words
    ("network: unt", "network.name must be 'unet' or 'attention-unet'; received 'unt'"),
    ("network: {stride: 3}", "network.stride must be auto, 1, 2 or 4; received 3"),
    ("network: {coarse: 3}", "network.coarse must be auto, 1, 2, 4 or 8; received 3"),
    (
        "network: {window: [64, 64]}",
        "network.window must be auto, or three whole numbers of voxels [z, y, x], in brackets, "
        "each at least 16; received [64, 64]",
    ),
    ("memory_budget_gb: -1", "memory_budget_gb must be at least 0; received -1"),
    ("loss: bce", "loss must be 'kl', 'dice' or 'mse'; received 'bce'"),
    (
        "curriculum: {trigger: x}",
        "curriculum.trigger must be 'loss', 'error' or 'epochs'; received 'x'",
    ),
    # lists
    *[
        (
            f"downsampled_dicom_size: {value}",
            f"downsampled_dicom_size must be auto, or {SIZE} 2; received {shown}",
        )
        for value, shown in [
            ("[512, 128]", "[512, 128]"),
            ("[512, 128, 128, 1]", "[512, 128, 128, 1]"),
            ("[512, 128, 1]", "[512, 128, 1]"),
            ("[512.5, 128, 128]", "[512.5, 128, 128]"),
            ("128", "128"),
            ("512x128x128", "'512x128x128'"),
        ]
    ],
    ("crop_size: [192, 192, 0]", f"crop_size must be {SIZE} 1; received [192, 192, 0]"),
    (
        "network: {channels: [0]}",
        "network.channels must be a list of whole numbers, each at least 1, one a level; "
        "received [0]",
    ),
    ("network: {channels: []}", "network.channels must name at least one level; received []"),
    (
        "augmentation: {flip_axes: [w]}",
        "augmentation.flip_axes must be a list of axes out of z, y and x; received ['w']",
    ),
    (
        "augmentation: {rotation_degrees_zyx: [1, 2]}",
        "augmentation.rotation_degrees_zyx must be three numbers of degrees (z, y, x), each from "
        "0 to 180; received [1, 2]",
    ),
    ("validation_scans: 0", f"validation_scans must be {SCANS}; received 0"),
    ("test_scans: last", f"test_scans must be {SCANS}; received 'last'"),
    ("test_scans: [1.5]", f"test_scans must be {SCANS}; received [1.5]"),
    ("objects: {}", f"objects must be {OBJECTS}; received {{}}"),
    ("objects: {jaw: 0}", f"objects must be {OBJECTS}; received {{'jaw': 0}}"),
    ("objects: {jaw: true}", f"objects must be {OBJECTS}; received {{'jaw': True}}"),
    ("objects: {jaw: one}", f"objects must be {OBJECTS}; received {{'jaw': 'one'}}"),
    ("objects: {jaw: [256]}", f"objects must be {OBJECTS}; received {{'jaw': [256]}}"),
    ("objects: [jaw]", f"objects must be {OBJECTS}; received ['jaw']"),
    # settings that don't go together
    (
        "objects: {left: [2, 1], right: 3, both: [1, 2]}",
        "objects: two objects must differ in their label values; 'left' and 'both' both have "
        "[1, 2]",
    ),
    (
        "objects: {left: null, right: null}",
        "objects: two objects must differ in their label values; 'left' and 'right' both have "
        "every label",
    ),
    (
        "objects: {left/upper: 1, right: 2}",
        "objects: where there are several, their metrics and pictures are named after them, so a "
        "name must consist of letters, digits, spaces and _ . -; received 'left/upper'",
    ),
    (
        "objects: {coarse: 1, right: 2}",
        "objects: where there are several, none may be called coarse, as that stands for a "
        "stage of the network in the metrics' names; received 'coarse'",
    ),
    (
        "initial_kernel_size: 1",
        "curriculum.minimum_sigma must not exceed initial_kernel_size; received 1.5 and 1",
    ),
    (
        "intensity: {low: 60, high: 40}",
        "intensity.low must be below intensity.high; received 60 and 40",
    ),
]


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_value_is_named_with_its_key_and_the_rule(written, line, sentence):
    text = f"jaw_loc_config:\n  {line}\n"
    assert refusal(written(text)) == f"userconf.yml: {sentence}"


def test_every_setting_that_is_no_single_value_has_its_rule_in_words(written):
    """Otherwise pydantic's own words for lists, tuples and unions reach the user."""
    params = load_config(written({})).as_params()
    several = {key for key, value in params.items() if isinstance(value, list | dict)}
    either = {"validation_scans", "test_scans"}
    assert several | either <= set(RULES) <= known_keys()


# --- files that are no config --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold a mapping jaw_loc_config; received nothing"),
        (
            "other: 3\nmore: 4\n",
            "must hold a mapping jaw_loc_config; received the keys other, more",
        ),
        ("jaw_loc_config:\n", "must hold a mapping jaw_loc_config; received nothing"),
        ("jaw_loc_config: 3\n", "must hold a mapping jaw_loc_config; received 3"),
        ("- 1\n- 2\n", "must hold a mapping jaw_loc_config; received [1, 2]"),
        ("jaw_loc_config: {a: [1\n", "must be YAML; line 2, column 1: expected ',' or ']'"),
        ("jaw_loc_config:\n\tseed: 1\n", "must be YAML; line 2, column 1: found character '\\t'"),
        ("a\0b", "must be YAML; unacceptable character"),
        (
            "jaw_loc_config:\n  seed: 1\n  network: {stride: 1}\n  seed: 2\n",
            "must be YAML; line 4, column 3: the key seed stands here a second time",
        ),
        (
            "jaw_loc_config: {seed: 1}\njaw_loc_config: {seed: 2}\n",
            "must be YAML; line 2, column 1: the key jaw_loc_config stands here a second time",
        ),
    ],
)
def test_a_file_that_is_no_config_is_refused(written, text, said):
    path = written(text)
    assert refusal(path).startswith(f"{path}: the config {said}")


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jaw_loc_config: {dicom_dirs: " + "{a: " * 2000, "is nested too deeply"),
        (f"a0: &a0 [1]\n{LAUGHS}jaw_loc_config: {{dicom_dirs: *a11}}", "must have at most 131072"),
        ("jaw_loc_config: &a {network: *a}", "must have at most 131072 values, 100 levels deep"),
        ("jaw_loc_config: {seed: 2001-99-99}", "can't be read; month must be in"),
        ("#" * 2**18 + "\n", "has at most 0.3 MB; this file has 0.3 MB"),
    ],
    ids=["nested", "aliases", "an alias of itself", "no date", "large"],
)
def test_a_file_that_would_fill_the_memory_or_break_the_reader_is_refused(written, text, said):
    sentence = refusal(written(text))
    assert f"userconf.yml: the config {said}" in sentence
    assert len(sentence) < 400


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "userconf.yml")
    assert "userconf.yml: the config must be a file; it is a pipe" in refusal(
        tmp_path / "userconf.yml"
    )


def test_a_binary_file_or_a_folder_is_no_config(tmp_path):
    (tmp_path / "x.yml").write_bytes(b"\xff\xfe\x00\xd8")
    assert "x.yml: the config can't be read" in refusal(tmp_path / "x.yml")
    assert "the config can't be read" in refusal(tmp_path)


def test_an_absent_file_is_named_with_what_to_do(written, tmp_path):
    sentence = refusal(tmp_path / "userconf.yml")
    assert sentence == (
        f"{tmp_path / 'userconf.yml'}: no such config file; name one with --config, "
        f"or try jawloc-train --demo"
    )
    experiment = tmp_path / "e.yml"
    sentence = refusal(written({}), experiment=experiment)
    assert sentence == f"{experiment}: no such config file; --experiment must name one"


# --- one laid over the other ---------------------------------------------------------------------


def test_set_wins_over_the_experiment_and_that_over_the_config(written):
    path = written(
        {"seed": 1, "batch_size": 1, "num_epochs": 1, "curriculum": {"patience": 1, "threshold": 1}}
    )
    experiment = written(
        {"batch_size": 2, "num_epochs": 2, "curriculum": {"threshold": 2.0}}, "e.yml"
    )
    config = load_config(path, experiment=experiment, overrides=["num_epochs=4", "num_epochs=3"])
    assert (config.training.seed, config.training.batch_size) == (1, 2)
    assert config.training.num_epochs == 3
    assert (config.curriculum.patience, config.curriculum.threshold) == (1, 2.0)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("curriculum.threshold=0.4", "curriculum.threshold", 0.4),
        ("curriculum={threshold: 0.4}", "curriculum.threshold", 0.4),
        (" seed = 7 ", "seed", 7),
        ("downsampled_dicom_size=[8, 4, 4]", "downsampled_dicom_size", [8, 4, 4]),
        ("validation_scans=[a, 12]", "validation_scans", ["a", 12]),
        ("objects={left: [1], right: [2]}", "objects", {"left": [1], "right": [2]}),
        ("objects.jaw=[3]", "objects", {"jaw": [3]}),
        ("objects={anterior: 1, posterior: 2}", "objects", {"anterior": [1], "posterior": [2]}),
        ("objects={whole: null, part: 2}", "objects", {"whole": None, "part": [2]}),
        ("objects={jaw (lower): 2}", "objects", {"jaw (lower)": [2]}),  # nothing bears its name
        ("network=attention-unet", "network.name", "attention-unet"),
        ("network.stride=2", "network.stride", 2),
        ("device=cuda:1", "device", "cuda:1"),
    ],
)
def test_set_takes_any_key_with_a_yaml_value(written, override, key, value):
    path = written({"curriculum": {"patience": 3}})
    params = load_config(path, overrides=[override]).as_params()
    assert params[key] == value
    assert params["curriculum.patience"] == 3


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "--set: the form is KEY=VALUE; received 'seed'"),
        ("=3", "--set: the form is KEY=VALUE; received '=3'"),
        ("sead=3", "--set: unknown key 'sead'; the nearest valid key is 'seed'"),
        ("seed=[1", "--set: the value of seed must be YAML; received '[1'"),
        ("seed=x", "--set: seed must be a whole number; received 'x'"),
        ("seed=", "--set: seed must be a whole number; received nothing"),
        (
            "curriculum={treshold: 1}",
            "--set: unknown key 'curriculum.treshold'; "
            "the nearest valid key is 'curriculum.threshold'",
        ),
        (
            "initial_kernel_size=0.5",
            "--set: curriculum.minimum_sigma must not exceed initial_kernel_size; "
            "received 1.5 and 0.5",
        ),
        (
            "curriculum.minimum_sigma=9",
            "--set: curriculum.minimum_sigma must be at most 8 with a network.window of 64, or its "
            "heatmaps don't fit into the window; received 9",
        ),
    ],
)
def test_a_bad_override_is_refused(written, override, sentence):
    assert refusal(written({}), overrides=[override]) == sentence


def test_the_file_that_holds_the_mistake_is_the_one_named(written):
    good, bad = written({"seed": 1}), written({"seed": "x"}, "e.yml")
    assert refusal(good, experiment=bad).startswith("e.yml: seed must be")
    unknown = written({"sead": 1}, "e.yml")
    assert refusal(good, experiment=unknown).startswith("e.yml: unknown key 'sead'")
    assert refusal(written({"seed": "x"}), experiment=written({}, "e.yml")).startswith("userconf")
    # a mistake that is overruled is none
    assert load_config(written({"seed": "x"}), overrides=["seed=2"]).training.seed == 2


def test_paths_are_relative_to_the_file_that_names_them(written, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = written({"dicom_dirs": ["scans", "/abs"], "cache_dir": "cache"}, "lab/userconf.yml")
    config = load_config(path)
    assert config.base == tmp_path / "lab"
    assert config.cache.dicom_dirs == (str(tmp_path / "lab" / "scans"), "/abs")
    assert config.cache.cache_dir == str(tmp_path / "lab" / "cache")

    experiment = written({"dicom_dirs": ["../scans"]}, "lab/experiments/e.yml")
    config = load_config(path, experiment=experiment)
    folder = Path(config.cache.dicom_dirs[0])
    assert folder.resolve() == tmp_path / "lab" / "scans"

    config = load_config(path, overrides=["dicom_dirs=[scans]", "cache_dir=other"])
    assert config.cache.dicom_dirs == (str(tmp_path / "here" / "scans"),)
    assert config.cache.cache_dir == str(tmp_path / "here" / "other")
    assert config.base == tmp_path / "lab"  # outputs stay beside the config


def test_home_folders_are_found(written, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = load_config(written({"dicom_dirs": ["~/scans", "~nobody-of-this-name/x"]}))
    assert config.cache.dicom_dirs[0] == str(tmp_path / "home" / "scans")
    assert config.cache.dicom_dirs[1] == str(tmp_path / "~nobody-of-this-name" / "x")


# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["attention-unet", {"name": "attention-unet"}])
def test_the_labs_network_comes_with_the_labs_recipe(written, network):
    params = load_config(written({"network": network})).as_params()
    assert params["network.name"] == "attention-unet"
    assert (params["batch_size"], params["learning_rate"]) == (8, 1e-4)
    assert params["learning_rate_schedule"] == "constant"
    assert (params["weight_decay"], params["weight_average_epochs"]) == (0, 0)
    assert params["curriculum.trigger"] == "loss"
    assert (params["curriculum.threshold"], params["curriculum.shrink_factor"]) == (1.0, 0.9)


def test_the_config_wins_over_the_recipe(written):
    settings = {"network": "attention-unet", "batch_size": 2, "curriculum": {"threshold": 0.7}}
    params = load_config(written(settings), overrides=["learning_rate=0.01"]).as_params()
    assert (params["batch_size"], params["learning_rate"]) == (2, 0.01)
    assert (params["curriculum.threshold"], params["curriculum.trigger"]) == (0.7, "loss")
    params = load_config(written(settings | {"curriculum": {"trigger": "error"}})).as_params()
    assert params["curriculum.trigger"] == "error"
    assert params["curriculum.threshold"] == load_config(written({})).curriculum.threshold


def test_the_labs_trigger_comes_with_the_labs_threshold(written):
    params = load_config(written({"curriculum": {"trigger": "loss"}})).as_params()
    assert (params["curriculum.threshold"], params["curriculum.shrink_factor"]) == (1.0, 0.9)
    assert params["network.name"] == "unet"
    assert params["batch_size"] != LAB_RECIPE["batch_size"]


def test_a_networks_short_name_can_be_laid_over(written):
    """Regression: --set network.stride made a config's `network: attention-unet` the default."""
    path = written({"network": "attention-unet"})
    assert load_config(path, overrides=["network.stride=2"]).network.name == "attention-unet"
    assert load_config(path, overrides=["network=unet"]).network.name == "unet"


# --- what is logged ------------------------------------------------------------------------------


def test_params_are_the_dotted_config_keys(written):
    params = load_config(written({"initial_kernel_size": 6})).as_params()
    wanted = {"curriculum.threshold", "curriculum.minimum_sigma", "learning_rate", "dicom_dirs"}
    assert wanted <= set(params)
    assert params["initial_kernel_size"] == 6
    sections = {"curriculum", "network", "augmentation", "intensity", "presence_classifier"}
    assert set(params) == known_keys() - sections


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "attention-unet", "dicom_dirs": ["a", "/b"], "cache_dir": "c"},
        {"curriculum": {"trigger": "loss"}, "validation_scans": ["a", 3], "test_scans": 2},
        {"objects": {"left": [1], "right": [2, 3]}, "initial_kernel_size": 3.5},
    ],
)
def test_the_config_that_a_run_keeps_says_the_same(written, tmp_path, settings):
    config = load_config(written(settings))
    kept = written(config.as_yaml(), "script_output/x/config.yml")
    again = load_config(kept)
    assert again.as_params() == config.as_params()
    # laid over the config that it came from, it changes nothing either: the cache stays in place
    assert load_config(written(settings), experiment=kept).as_params() == config.as_params()


def test_settings_made_by_code_are_checked_alike(tmp_path):
    config = check_config({"seed": 3}, base=tmp_path, source="--demo", overrides=["num_epochs=2"])
    assert (config.training.seed, config.training.num_epochs) == (3, 2)
    with pytest.raises(InputError, match=r"^--demo: unknown key 'sead'"):
        check_config({"sead": 3}, base=tmp_path, source="--demo")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"curriculum": {"minimum_sigma": 0.4}},
            "curriculum.minimum_sigma must be at least 0.5 with network.stride 2",
        ),
        (
            {"curriculum": {"minimum_sigma": 0.2}, "network": {"stride": 1}},
            "curriculum.minimum_sigma must be at least 0.25 with network.stride 1",
        ),
        ({"intensity": {"rule": "raw"}}, "intensity.rule raw needs augmentation.gamma"),
        (
            {"network": {"name": "attention-unet", "coarse": 4}},
            r"network.coarse must be 1 \(or auto\) with network.name attention-unet",
        ),
        (
            {"network": {"name": "attention-unet"}, "mask_supervision": True},
            r"mask_supervision must be false \(or auto\) with network.name attention-unet",
        ),
    ],
)
def test_settings_that_spoil_each_other_are_refused(written, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        load_config(written(settings))


@pytest.mark.parametrize(
    ("size", "network", "coarse", "stride", "window"),
    [
        ([512, 128, 128], {}, 4, 2, 64),
        ([128, 64, 64], {}, 2, 2, 32),
        ([96, 48, 48], {}, 1, 2, 32),
        ([24, 40, 31], {}, 1, 1, 16),
        ([24, 40, 31], {"stride": 2}, 1, 2, (24, 32, 32)),
        ([96, 48, 48], {"coarse": 2}, 2, 2, 32),
        ([512, 128, 128], {"stride": 4}, 4, 4, 64),
        ([1024, 256, 256], {}, 8, 4, 128),
        ([96, 48, 48], {"coarse": 8}, 8, 2, (96, 48, 48)),
        ([65, 64, 64], {"coarse": 8}, 8, 2, (66, 64, 64)),
        ([512, 128, 128], {"coarse": 1}, 1, 2, 32),
        ([96, 48, 48], {"coarse": 1, "stride": 4}, 1, 4, (64, 48, 48)),
        ([128, 64, 64], {"window": [48, 48, 48]}, 2, 2, 48),
        ([512, 128, 128], {"name": "attention-unet"}, 1, 2, 32),
    ],
)
def test_the_stages_of_the_network_are_decided_and_logged_with_the_settings(
    written, size, network, coarse, stride, window
):
    """Otherwise a later version could decide otherwise and build another network."""
    config = load_config(written({"downsampled_dicom_size": size, "network": network}))
    decided = (config.network.coarse, config.network.stride, config.network.window)
    window = window if isinstance(window, tuple) else (window,) * 3
    assert decided == (coarse, stride, window)
    params = config.as_params()
    logged = tuple(params[f"network.{key}"] for key in ("coarse", "stride", "window"))
    assert logged == (coarse, stride, list(window))


def test_what_looks_doubled_and_is_not_is_read(written):
    """Aliases, merged mappings, and another tool's section, which may be as it likes."""
    text = """
base: &b {learning_rate: 0.001, seed: 3}
other: {a: 1, a: 2}
jaw_loc_config:
  <<: *b
  seed: 4
"""
    config = load_config(written(text))
    assert (config.training.learning_rate, config.training.seed) == (0.001, 4)


@pytest.mark.parametrize(
    ("size", "steps"), [([512, 128, 128], 900), ([128, 64, 64], 900), ([96, 48, 48], 600)]
)
def test_a_network_of_two_stages_is_trained_for_longer(written, size, steps):
    config = load_config(written({"downsampled_dicom_size": size}))
    assert config.training.cycle_steps == steps
    assert "cycle_steps" not in config.requested
    own = load_config(written({"downsampled_dicom_size": size, "cycle_steps": 5}))
    assert own.training.cycle_steps == 5


@pytest.mark.parametrize(
    ("network", "decided"),
    [({}, True), ({"coarse": 1}, True), ({"name": "attention-unet"}, False)],
)
def test_masks_are_learned_by_all_but_the_labs_network(written, network, decided):
    config = load_config(written({"network": network}))
    assert config.network.mask_supervision is decided
    assert config.as_params()["mask_supervision"] is decided
    off = load_config(written({"network": network, "mask_supervision": False}))
    assert off.network.mask_supervision is False


def test_raw_values_are_fine_without_changes_of_the_grey_range(written):
    unchanged = {"gamma": 0.0, "offset": 0.0, "noise": 0.0}
    config = load_config(written({"intensity": {"rule": "raw"}, "augmentation": unchanged}))
    assert config.intensity.rule == "raw"


# --- the sigmas of two stages --------------------------------------------------------------------

SIGMAS = ("coarse_initial_sigma", "coarse_minimum_sigma", "fine_initial_sigma", "minimum_sigma")


def sigmas(config):
    params = config.as_params()
    return tuple(params[f"curriculum.{key}"] for key in SIGMAS)


@pytest.mark.parametrize(
    ("size", "initial", "minimum", "expected"),
    [
        ([512, 128, 128], 8, 1.5, (8, 6, 4, 1.5)),
        ([512, 128, 128], 4, 1.5, (6, 6, 4, 1.5)),
        ([512, 128, 128], 2, 1.5, (6, 6, 2, 1.5)),
        ([512, 128, 128], 8, 4.0, (8, 6, 4, 4)),
        ([512, 128, 128], 8, 8.0, (8, 8, 8, 8)),
        ([128, 64, 64], 6, 1.0, (6, 1.5, 2, 1)),
        ([128, 64, 64], 8, 4.0, (8, 4, 4, 4)),
        ([24, 40, 31], 8, 1.0, ("auto", "auto", "auto", 1)),  # one stage: nothing to decide
    ],
)
def test_the_sigmas_of_two_stages_are_decided_and_logged(written, size, initial, minimum, expected):
    path = written(
        {
            "downsampled_dicom_size": size,
            "initial_kernel_size": initial,
            "curriculum": {"minimum_sigma": minimum},
        }
    )
    config = load_config(path)
    assert sigmas(config) == expected
    assert sigmas(load_config(written(config.as_yaml(), "kept.yml"))) == expected


@pytest.mark.parametrize("size", [[512, 128, 128], [128, 64, 64]])
def test_the_default_search_space_is_valid_and_moves_what_gives_the_position(written, size):
    space = yaml.safe_load(
        (Path(__file__).parents[2] / "jawloc/workflows/tune/curriculum.yml").read_text(
            encoding="utf-8"
        )
    )
    limits = space["search"]["curriculum.minimum_sigma"]
    path = written({"downsampled_dicom_size": size})
    ends = []
    for sigma in (limits["low"], 1.3, 2.6, limits["high"]):
        config = load_config(path, overrides=[f"curriculum.minimum_sigma={sigma}"])
        fine = config.curriculum.per_stage(2)[-1]
        assert fine.initial_sigma_voxels >= fine.minimum_sigma_voxels == sigma
        ends.append(fine.minimum_sigma_voxels)
    assert len(set(ends)) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"coarse_minimum_sigma": 5},
            "curriculum.coarse_minimum_sigma must be at least 6 where the coarse stage's heatmap "
            "voxels are 16 long; received 5",
        ),
        (
            {"coarse_initial_sigma": 5.5},
            "curriculum.coarse_initial_sigma must be at least 6 where the coarse stage's heatmap "
            "voxels are 16 long; received 5.5",
        ),
        (
            {"coarse_initial_sigma": 7, "coarse_minimum_sigma": 7.5},
            "curriculum.coarse_initial_sigma must be at least 7.5 "
            "(curriculum.coarse_minimum_sigma); received 7",
        ),
        (
            {"fine_initial_sigma": 8.5},
            "curriculum.fine_initial_sigma must be at most 8 with a network.window of 64, or its "
            "heatmaps don't fit into the window; received 8.5",
        ),
        (
            {"fine_initial_sigma": 1.2},
            "curriculum.fine_initial_sigma must be at least 1.5 (curriculum.minimum_sigma); "
            "received 1.2",
        ),
        (
            {"fine_initial_sigma": "wide"},
            "curriculum.fine_initial_sigma must be auto, or a number of downsampled voxels "
            "greater than 0; received 'wide'",
        ),
        (
            {"coarse_minimum_sigma": 0},
            "curriculum.coarse_minimum_sigma must be auto, or a number of downsampled voxels "
            "greater than 0; received 0",
        ),
    ],
)
def test_a_sigma_that_a_stage_cannot_represent_is_refused(written, settings, sentence):
    path = written({"curriculum": settings})
    assert refusal(path) == f"userconf.yml: {sentence}"


def test_a_minimum_sigma_too_wide_for_the_window_is_refused(written):
    path = written({"downsampled_dicom_size": [128, 64, 64]})
    assert refusal(path, overrides=["curriculum.minimum_sigma=4.5"]) == (
        "--set: curriculum.minimum_sigma must be at most 4 with a network.window of 32, or its "
        "heatmaps don't fit into the window; received 4.5"
    )
    settings = {"network": {"coarse": 1}, "curriculum": {"minimum_sigma": 8}}
    assert load_config(written(settings)).curriculum.minimum_sigma_voxels == 8  # one stage: none


def test_a_window_of_parts_of_heatmap_voxels_is_refused(written):
    """Regression: the masks' targets were halved in its last plane."""
    path = written({"network": {"window": [64, 63, 64]}})
    assert refusal(path) == (
        "userconf.yml: network.window must be whole heatmap voxels along each axis, which are 2 "
        "long (network.stride); received [64, 63, 64]"
    )


def test_sigmas_of_two_stages_are_refused_where_there_is_one(written):
    path = written({"network": "attention-unet", "curriculum": {"fine_initial_sigma": 2}})
    assert "must be auto with a network of one stage" in refusal(path)


def test_only_what_auto_changes_is_noted(written, capsys):
    def note(settings):
        config = load_config(written(settings))
        tell_sigmas(config.curriculum, config.network, config.requested)
        out, err = capsys.readouterr()
        assert out == ""
        return err

    wide = {"initial_kernel_size": 8}
    assert note({}) == ""
    narrow = note({"curriculum": {"minimum_sigma": 1.0}})
    assert "coarse_minimum_sigma is 6 instead of curriculum.minimum_sigma 1 " in narrow
    assert "initial" not in narrow
    both = note(wide)
    assert both.count("\n") == 1
    assert "coarse_minimum_sigma is 6 instead of curriculum.minimum_sigma 1.5" in both
    assert "fine_initial_sigma is 4 instead of initial_kernel_size 8" in both
    assert "coarse_initial_sigma" not in both
    widened = note({**wide, "curriculum": {"coarse_minimum_sigma": 10}})
    assert "coarse_initial_sigma is 10 instead of initial_kernel_size 8" in widened
    assert "coarse_minimum_sigma is" not in widened  # that is the user's own
    own = {"coarse_minimum_sigma": 7, "coarse_initial_sigma": 9, "fine_initial_sigma": 5}
    assert note({**wide, "curriculum": own}) == ""
    assert note({"network": "attention-unet"}) == ""
    assert note({"initial_kernel_size": 4, "curriculum": {"coarse_minimum_sigma": 6.5}}) != ""


def test_rules_of_shrinking_without_effect_are_noted(written, capsys):
    def note(**settings):
        config = load_config(written({"downsampled_dicom_size": [48, 32, 32], **settings}))
        tell_sigmas(config.curriculum, config.network, config.requested)
        return capsys.readouterr().err

    assert note(curriculum={"threshold": 0.5}).startswith(
        "note: without effect: curriculum.threshold"
    )
    assert note(curriculum={"threshold": 0.5}, initial_kernel_size=8) == ""
    assert note(curriculum={"trigger": "loss"}) == ""  # its recipe begins at 8
    assert note() == ""


def test_settings_that_are_kept_follow_another_minimum(written):
    kept = load_config(written({"downsampled_dicom_size": [48, 32, 32]})).as_yaml()
    again = load_config(written(kept), overrides=["curriculum.minimum_sigma=1.0"])
    assert again.curriculum.first_sigma_voxels == 1.0


def test_settings_that_are_kept_repeat_a_single_sigma_that_the_recipe_would_widen(written):
    """Regression: it was kept as auto, which is 8 with the lab's trigger."""
    own = {"trigger": "loss", "minimum_sigma": 1.5}
    config = load_config(written({"initial_kernel_size": 1.5, "curriculum": own}))
    assert load_config(written(config.as_yaml(), "kept.yml")).as_params() == config.as_params()


def test_the_labs_recipe_shrinks_with_the_settings_that_come_with_jawloc():
    path = Path(__file__).parents[2] / "userconf.yml"
    for override in ("network.name=attention-unet", "curriculum.trigger=loss"):
        config = load_config(path, overrides=[override])
        (stage, *_) = config.curriculum.per_stage(len(config.network.stages()))
        assert stage.first_sigma_voxels == 8


def test_sigma_stays_as_it_is_unless_it_begins_wider(written):
    def schedule(**settings):
        config = load_config(written(settings))
        stages = config.curriculum.per_stage(len(config.network.stages()))
        return [(s.first_sigma_voxels, s.minimum_sigma_voxels) for s in stages]

    small = {"downsampled_dicom_size": [48, 32, 32]}
    assert schedule(**small) == [(1.5, 1.5)]
    assert schedule(**small, curriculum={"minimum_sigma": 1.0}) == [(1.0, 1.0)]
    assert schedule(**small, initial_kernel_size=8) == [(8.0, 1.5)]
    assert schedule(**small, initial_kernel_size="auto") == [(1.5, 1.5)]
    assert schedule() == [(6.0, 6.0), (1.5, 1.5)]  # on the grid of a fish
    assert schedule(initial_kernel_size=8) == [(8.0, 6.0), (4.0, 1.5)]
    lab = schedule(**small, curriculum={"trigger": "loss"})  # its rule needs a sigma that shrinks
    assert lab == [(8.0, 1.5)]
    assert schedule(**small, network="attention-unet") == [(8.0, 1.0)]


# --- the threshold of the loss that is trained on ------------------------------------------------


@pytest.mark.parametrize(("loss", "threshold"), [("kl", 1.0), ("dice", 0.393), ("mse", 0.787)])
def test_every_loss_has_a_default_threshold_of_its_own(written, loss, threshold):
    """Regression: 1 - Dice is always below the lab's 1.0 nats, and sigma collapsed."""
    params = load_config(written({"loss": loss, "curriculum": {"trigger": "loss"}})).as_params()
    assert params["curriculum.threshold"] == pytest.approx(threshold, abs=1e-3)
    params = load_config(written({"loss": loss})).as_params()
    assert params["curriculum.threshold"] == 1.0  # of the error, in sigmas


@pytest.mark.parametrize("loss", ["dice", "mse"])
def test_a_threshold_that_every_heatmap_meets_is_refused(written, loss):
    settings = {"loss": loss, "curriculum": {"trigger": "loss", "threshold": 1}}
    assert refusal(written(settings)) == (
        f"userconf.yml: curriculum.threshold must be below 1 with curriculum.trigger loss and loss "
        f"{loss}, as even a heatmap without a peak has a smaller loss; received 1"
    )
    settings["curriculum"]["trigger"] = "error"
    assert load_config(written(settings)).curriculum.threshold == 1


def test_what_is_auto_is_decided_anew_when_a_setting_changes(written):
    """Regression: the window that was decided for one network stayed with another."""
    config = load_config(written({}))
    assert (config.network.stride, config.network.window) == (2, (64, 64, 64))
    changed = change_config(config, {"network.coarse": 2}, source="x")
    assert changed.network.window == (32, 32, 32)
    assert change_config(changed, {"network.coarse": 4}, source="x").network == config.network
    smaller = change_config(config, {"downsampled_dicom_size": [128, 64, 64]}, source="x")
    network = smaller.network
    assert (network.stride, network.coarse, network.window) == (2, 2, (32, 32, 32))
    # what was set by hand stays, in a change too
    by_hand = load_config(written({"network": {"window": [64, 64, 64]}}))
    for one in (by_hand, change_config(config, {"network.window": [64, 64, 64]}, source="x")):
        kept = change_config(one, {"network.coarse": 2}, source="x").network
        assert (kept.coarse, kept.window) == (2, (64, 64, 64))


def test_a_recipe_goes_with_the_network_and_the_trigger_that_a_change_names(written):
    config = load_config(written({"weight_decay": 0.5}))
    lab = change_config(config, {"network.name": "attention-unet"}, source="x")
    wanted = load_config(written({"weight_decay": 0.5, "network": "attention-unet"}))
    assert lab.as_params() == wanted.as_params()
    assert (lab.training.batch_size, lab.training.weight_decay) == (8, 0.5)
    back = change_config(lab, {"network.name": "unet"}, source="x")
    assert back.as_params() == config.as_params()


def test_a_config_can_be_sent_to_another_process_and_changed_there(written):
    config = load_config(written({}), overrides=["network.stride=1"])
    sent = pickle.loads(pickle.dumps(config))
    assert sent == config
    changed = change_config(sent, {"network.coarse": 2}, source="x")
    assert (changed.network.stride, changed.network.window) == (1, (32, 32, 32))
    assert (
        changed.as_params() == change_config(config, {"network.coarse": 2}, source="x").as_params()
    )


def test_runs_are_compared_by_the_usual_settings_and_those_that_were_changed(written):
    settings = {"network": {"channels": [4, 8], "skip_connections": "add"}, "n_workers": 3}
    config = load_config(written({"dicom_dirs": ["a"], **settings}))
    compared = config.compared_params()
    assert compared["learning_rate"] == 0.003  # usual, and at its default
    assert compared["network.channels"] == [4, 8]
    # at its default, of this machine only, and where files lie
    assert not compared.keys() & {"network.skip_connections", "n_workers", "dicom_dirs"}
    assert config.compared_params(also=["n_workers"])["n_workers"] == 3


def test_a_file_that_sets_every_key_to_its_default_changes_nothing(written, tmp_path):
    """So that a run with a study's best.yml has no more params than the study's trials."""
    config = load_config(written({"dicom_dirs": ["a"]}))
    (tmp_path / "best.yml").write_text(config.as_yaml(), encoding="utf-8")
    again = load_config(written({"dicom_dirs": ["a"]}), experiment=tmp_path / "best.yml")
    assert again.compared_params() == config.compared_params()
