"""What a message may show: every secret in an address is hidden, wherever a message goes."""

import pytest

from jawloc.errors import InputError, TrainingError, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://lab:s3cret@host/db", "postgresql://lab:***@host/db"),
        ("postgresql+psycopg://lab:s3/cr@t@host/db", "postgresql+psycopg://lab:***@host/db"),
        ("https://lab:s3cret@host:5000/#/x", "https://lab:***@host:5000/#/x"),
        ("https://s3cret@host/x", "https://***@host/x"),
        (
            "'https://a:s3cret@h' and 'mysql://b:s3cret@h'",
            "'https://a:***@h' and 'mysql://b:***@h'",
        ),
        (
            "https://h/x?a=1&access_token=s3cret&b=2#top",
            "https://h/x?a=1&access_token=***&b=2#top",
        ),
        ("wasbs://h/x?sv=1&sig=s3cret", "wasbs://h/x?sv=1&sig=***"),
        (
            "connection to host=h user=u password=s3cret failed",
            "connection to host=h user=u password=*** failed",
        ),
        ("https://host:5000/a@b", "https://host:5000/a@b"),
        ("sqlite:////home/lab/mlruns/mlflow.db", "sqlite:////home/lab/mlruns/mlflow.db"),
        ("models:/jaw_locator@champion", "models:/jaw_locator@champion"),
        ("a/b:c@d: e=f", "a/b:c@d: e=f"),
    ],
)
def test_secrets_in_addresses_are_hidden_and_nothing_else(text, shown):
    assert without_secrets(text) == shown
    assert str(InputError(text)) == str(TrainingError(text)) == shown
