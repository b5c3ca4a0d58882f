"""The exceptions that a user is meant to read."""


class InputError(Exception):
    """A user's input breaks a rule.

    The message is one sentence with the file (or key), the rule and the value, for instance
    ``131.dcm: the mask is empty; an example needs at least one labelled voxel``. The command
    line prints it without a traceback and exits with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on (for instance a loss that is not finite); exit code 1."""
