"""What is searched: files, what they may say, and what a trial gets."""

from pathlib import Path

import pytest
import yaml
from optuna.trial import FixedTrial

from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.workflows.tune.search_space import Choice, Range, read_space
from jawloc.workflows.tune.study import StudyConfig, search_definition
from tests.lab import write_config

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def space(tmp_path):
    """Return a function that writes a space and reads it."""

    def write(searched):
        path = tmp_path / "space.yml"
        path.write_text(
            searched if isinstance(searched, str) else yaml.safe_dump({"search": searched})
        )
        return read_space(path)

    return write


@pytest.fixture
def config(tmp_path):
    return load_config(write_config(tmp_path))


@pytest.mark.parametrize("path", sorted((CHECKOUT / "experiments" / "tune").glob("*.yml")), ids=str)
def test_every_space_that_comes_with_jawloc_fits_the_default_settings(path):
    space = read_space(path)
    default = load_config(CHECKOUT / "userconf.yml")
    space.with_initial_sigma(default).check(default)
    config = load_config(CHECKOUT / "userconf.yml", overrides=["initial_kernel_size=8"])
    assert {"curriculum.threshold", "curriculum.minimum_sigma"} <= set(space.parameters)
    default = FixedTrial(space.default(config))
    assert space.apply(config, space.suggest(default)).as_params() == config.as_params()


def test_a_search_of_how_sigma_shrinks_has_trials_in_which_it_does(space, tmp_path):
    shrinking = space({"curriculum.threshold": {"low": 0.5, "high": 2.0}})

    def initial(**settings):
        config = load_config(write_config(tmp_path, **settings))
        completed = shrinking.with_initial_sigma(config)
        completed.check(config)
        first = completed.default(config).get("initial_kernel_size")
        return completed.parameters.get("initial_kernel_size"), first

    assert initial(initial_kernel_size="auto") == (Choice(("auto", 8.0)), "auto")
    assert initial(initial_kernel_size=4) == (None, None)
    assert initial(initial_kernel_size=8, curriculum={"trigger": "loss"}) == (None, None)
    width = space({"curriculum.minimum_sigma": {"low": 1.0, "high": 2.0}})
    config = load_config(write_config(tmp_path, initial_kernel_size="auto"))
    assert width.with_initial_sigma(config) is width  # the minimum is then the sigma itself
    width.check(config)


@pytest.mark.parametrize(
    ("searched", "sentence"),
    [
        ({"curriculum.treshold": [1]}, "unknown key 'curriculum.treshold'"),
        (
            {"curriculum.threshold": {"low": 2, "high": 1}},
            "low must be below high; received 2 and 1",
        ),
        ({"curriculum.threshold": {"low": 1.0, "high": 1.0}}, "low must be below high"),
        ({"curriculum.threshold": {"low": 1.0, "high": 10**400}}, "numbers of at most 1e+300"),
        ({"curriculum.threshold": {"low": 0.0, "high": 1.0, "log": True}}, "low must be above 0"),
        ({"curriculum.threshold": {"low": 0.1, "high": 1.0, "step": 2.0}}, "step must be above 0"),
        ({"curriculum.threshold": {"low": 0.1}}, "a range needs high"),
        ({"curriculum.threshold": {"low": "a", "high": 1}}, "low must be a number; received 'a'"),
        ({"curriculum.threshold": {"lo": 1, "low": 1, "high": 2}}, "a range has low, high, log"),
        ({"curriculum.threshold": 1.0}, "must be a range {low: ..., high: ...} or a list"),
        ({"curriculum.threshold": []}, "a choice of at least one value"),
        ({"downsampled_dicom_size": [[1, 2, 3]]}, "is the same for all trials"),
        ({}, "must hold a mapping search of at least one setting"),
        ("[1, 2]", "must hold a mapping search"),
        ("search: {", "the space must be YAML"),
    ],
)
def test_a_space_that_is_none_is_refused_in_a_sentence(space, searched, sentence):
    with pytest.raises(InputError, match=r"space\.yml: ") as error:
        space(searched)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("searched", "sentence"),
    [
        (
            {"curriculum.minimum_sigma": {"low": 1.0, "high": 5.0}},
            "with curriculum.minimum_sigma 5.0, curriculum.minimum_sigma must not exceed "
            "initial_kernel_size; received 5 and 4",
        ),
        (
            {
                "curriculum.minimum_sigma": {"low": 1.0, "high": 3.0},
                "initial_kernel_size": {"low": 2.0, "high": 9.0},
            },
            "curriculum.minimum_sigma must not exceed initial_kernel_size; received 3 and 2",
        ),
        ({"learning_rate": {"low": 0.1, "high": 2.0}}, "learning_rate must be less than 1"),
        ({"loss": ["kl", "entropy"]}, "loss must be 'kl', 'dice' or 'mse'"),
    ],
)
def test_a_corner_that_no_training_can_have_is_found_before_the_first_trial(
    space, config, searched, sentence
):
    with pytest.raises(InputError) as error:
        space(searched).check(config)
    assert str(error.value).startswith("space.yml: ")
    assert sentence in str(error.value)


def test_a_trial_gets_numbers_whole_numbers_and_lists(space, config):
    searched = space(
        {
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "batch_size": {"low": 1, "high": 4},
            "network.channels": [[4, 8], [8, 16]],
        }
    )
    trial = FixedTrial({"learning_rate": 1e-5, "batch_size": 3, "network.channels": "[8, 16]"})
    changed = searched.apply(config, searched.suggest(trial))
    assert changed.training.learning_rate == 1e-5
    assert changed.training.batch_size == 3
    assert changed.network.channels == (8, 16)
    others = {**changed.as_params(), **dict.fromkeys(searched.parameters)}
    assert others == {**config.as_params(), **dict.fromkeys(searched.parameters)}


def test_the_default_is_brought_into_its_range(space, config):
    searched = space(
        {
            "curriculum.threshold": {"low": 0.5, "high": 2.0},  # the config's is 100
            "curriculum.minimum_sigma": {"low": 1.0, "high": 2.0},  # 1.5
            "batch_size": [4, 8],  # 2
        }
    )
    assert searched.default(config) == {
        "curriculum.threshold": 2.0,
        "curriculum.minimum_sigma": 1.5,
        "batch_size": 4,
    }


@pytest.mark.parametrize(
    ("searched", "value", "nearest"),
    [
        (Range(100, 850, step=100), 900, 800),
        (Range(100, 800, step=100), 640, 600),
        (Range(0.2, 0.5, step=0.1), 0.47, 0.5),
        (Range(0.2, 0.5, step=0.1), 9.0, 0.5),
        (Range(4, 9), 6, 6),
    ],
)
def test_a_value_is_brought_onto_a_step_of_its_range(searched, value, nearest):
    found = searched.nearest(value)
    assert found == pytest.approx(nearest)
    assert type(found) is type(searched.low)


def test_a_space_is_known_by_all_that_it_says(space):
    searched = space({"curriculum.threshold": {"low": 1, "high": 2.5}, "loss": ["kl", "dice"]})
    assert searched.parameters == {
        "curriculum.threshold": Range(1.0, 2.5),
        "loss": Choice(("kl", "dice")),
    }
    assert searched.as_mapping() == {
        "curriculum.threshold": {"low": 1.0, "high": 2.5, "log": False, "step": None},
        "loss": ["kl", "dice"],
    }


@pytest.mark.parametrize(
    ("searched", "settings", "default", "kept"),
    [
        # (stride, coarse, window) are (1, 1, (16, 16, 16)) by the grid
        ({"network.stride": [2, 1, 4]}, {}, {"network.stride": 1}, True),
        ({"network.stride": [2, "auto"]}, {}, {"network.stride": "auto"}, True),
        ({"network.window": [[64, 64, 64], "auto"]}, {}, {"network.window": "auto"}, True),
        ({"network.stride": [2, 4]}, {}, {"network.stride": 2}, False),
        (
            {"network.stride": [2, 1], "network.window": ["auto", [32, 32, 32]]},
            {"window": [32, 32, 32]},
            {"network.stride": 1, "network.window": "[32, 32, 32]"},
            True,
        ),
    ],
)
def test_the_default_trial_is_the_config_where_the_space_has_it(
    space, tmp_path, searched, settings, default, kept
):
    """Regression: "auto" among the choices wasn't known again once it was decided."""
    config = load_config(write_config(tmp_path, network=settings))
    searched = space(searched)
    assert searched.default(config) == default
    tried = searched.apply(config, searched.suggest(FixedTrial(default)))
    assert (tried.as_params() == config.as_params()) is kept


def test_a_trial_of_another_stride_gets_the_window_that_goes_with_it(space, config):
    searched = space({"network.stride": [1, 2, 4]})
    found = []
    for stride in (1, 2, 4):
        network = searched.apply(config, {"network.stride": stride}).network
        found.append((network.stride, network.window))
    assert found == [(1, (16, 16, 16)), (2, (24, 16, 16)), (4, (24, 16, 16))]
    # best.yml says what was decided
    text = yaml.safe_load(searched.apply(config, {"network.stride": 4}).as_yaml())
    assert text["jaw_loc_config"]["network"]["window"] == [24, 16, 16]


def test_a_study_knows_what_goes_with_a_setting(space, config, tmp_path):
    """Two visits search the same only if "auto" means the same in both."""
    searched, study = space({"network.stride": [1, 2]}), StudyConfig("s")
    by_hand = {"channels": [4, 8], "stride": 2, "window": [24, 16, 16]}
    other = load_config(write_config(tmp_path, network=by_hand))
    assert other.as_params() == config.as_params()
    first, second = (search_definition(c, searched, study, {}) for c in (config, other))
    assert first != second
    set_by_auto = {"network.window": [16, 16, 16]}
    assert set(first) - set(second) == {"search network.stride 1, which sets"}
    assert first["search network.stride 1, which sets"] == set_by_auto
