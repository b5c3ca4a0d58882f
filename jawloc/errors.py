"""The one exception that means "your input, not our bug"."""


class InputError(Exception):
    """A user's input breaks a rule.

    The message is one sentence with the file (or key), the rule and the value, for instance
    ``131.dcm: the mask is empty; an example needs at least one labelled voxel``. The command
    line prints it without a traceback and exits with code 2.
    """
