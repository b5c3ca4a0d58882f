"""What the trials in a study's storage must be: others than jawloc may have written into it."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

FIXED = "fixed_params"  # Optuna's attribute of a queued trial: the values to try


def count_trials(storage: BaseStorage, name: str) -> int:
    """Return how many trials a study has; raise ValueError if one isn't what Optuna writes."""
    # a study's own list has one trial of each number, whatever its database holds
    trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    numbers = [trial.number for trial in trials]
    if any(not isinstance(number, int) for number in numbers) or len({*numbers}) != len(numbers):
        raise ValueError("its trials must have a number each")
    if any(not isinstance(a, dict) for t in trials for a in (t.user_attrs, t.system_attrs)):
        raise ValueError("the attributes of its trials must be mappings")
    if any(not isinstance(t.system_attrs.get(FIXED, {}), dict) for t in trials):
        raise ValueError("the values that its trials are to try must be mappings")
    _check_errors(trials)
    return len(numbers)


def _check_errors(trials: Sequence[FrozenTrial]) -> None:
    if any(not isinstance(value, float | int) for t in trials for value in t.values or ()):
        raise ValueError("the errors of its trials must be numbers")
    for trial in trials:
        complete = trial.state == TrialState.COMPLETE
        if len(trial.values or ()) != 1 and (complete or trial.values is not None):
            raise ValueError("a complete trial must have one error, and others none or one")
