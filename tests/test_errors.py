"""What a message may show: no secret of an address, and nothing that can't be printed."""

import pytest

from jawloc.errors import MOST_CHARACTERS, InputError, TrainingError, without_secrets


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
        ("https://lab:s3/cr@t@host:5000/runs", "https://lab:***@host:5000/runs"),
        ("https://lab:5/cr?t@host/runs", "https://lab:5/cr?t@host/runs"),  # 5 may be a port
        ("https://host:5000/a@b", "https://host:5000/a@b"),
        ("sqlite:////home/lab/mlruns/mlflow.db", "sqlite:////home/lab/mlruns/mlflow.db"),
        ("models:/jaw_locator@champion", "models:/jaw_locator@champion"),
        ("a/b:c@d: e=f", "a/b:c@d: e=f"),
        ("#/runs?viewStateShareKey=a&key=s3cret", "#/runs?viewStateShareKey=a&key=***"),
    ],
)
def test_secrets_in_addresses_are_hidden_and_nothing_else(text, shown):
    assert without_secrets(text) == shown
    assert str(InputError(text)) == str(TrainingError(text)) == shown


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ("\0a\x1b[2J\r", r"\x00a\x1b[2J\r"),
        ("\u202eexe.\u2028x", r"\u202eexe.\u2028x"),
        ("\ud800", r"\ud800"),
        ("ü\n131.dcm: é", "ü\n131.dcm: é"),
    ],
)
def test_what_nothing_can_print_is_shown_by_its_code(held, shown):
    message = str(InputError(f"a.csv: {held}"))
    assert message == f"a.csv: {shown}"
    message.encode("utf-8")


def test_a_text_of_any_length_leaves_the_beginning_and_the_end():
    message = str(InputError(f"a.yml: {'x' * 70_000}; choose another"))
    assert len(message) <= MOST_CHARACTERS
    assert message.startswith("a.yml: xxx")
    assert "(70023 characters)" in message
    assert message.endswith("xxx; choose another")
