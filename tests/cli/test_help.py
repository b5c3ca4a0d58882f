"""`--help`: quick, with an example of every command and a whole sentence for every option."""

import re
import shlex
import subprocess
from collections.abc import Iterator

import click
import pytest

from jawloc import cli
from tests.cli.test_cli import process


def every_command(
    command: click.Command = cli.jawloc, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command with the words that start it, groups before the commands in them."""
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from every_command(inner, (*words, name))


def context(command: click.Command) -> click.Context:
    return command.make_context("jawloc", [], resilient_parsing=True)


COMMANDS = dict(every_command())
OPTIONS = [
    pytest.param(words, param, id=" ".join((*words, param.opts[-1])))
    for words, command in COMMANDS.items()
    for param in command.get_params(context(command))
    if isinstance(param, click.Option)
]


def examples(command: click.Command) -> list[list[str]]:
    """Return the command lines below "Example:" or "Examples:" in a command's help, as words."""
    _, _, below = (command.help or "").partition("Example")
    lines = [line.strip() for line in below.splitlines()[1:] if line.startswith("  ")]
    return [shlex.split(part, comments=True) for line in lines for part in line.split("&&") if part]


def test_every_command_is_known():
    expected = {
        "train",
        "tune",
        "locate",
        "review",
        "evaluate",
        "dicoms",
        "cache",
        "ui",
        "info",
        "doctor",
    }
    expected |= {"cache build", "cache verify", "cache clear", ""}
    assert {" ".join(words) for words in COMMANDS} == expected


def test_help_of_every_command_imports_nothing_heavy(tmp_path):
    """Regression guard: `--help` answers in a tenth of a second, not after torch and mlflow."""
    code = f"""
from jawloc.cli import jawloc
import sys
for command in {list(COMMANDS)}:
    jawloc([*command, "--help"], standalone_mode=False)
heavy = "torch mlflow numpy matplotlib pydicom scipy SimpleITK monai pandas pydantic yaml tqdm"
print("imported:", [name for name in heavy.split() if name in sys.modules])
"""
    ended = subprocess.run(**process(cwd=tmp_path, code=code))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Usage: ") == len(COMMANDS)
    assert ended.stdout.endswith("imported: []\n")


@pytest.mark.parametrize(("words", "option"), OPTIONS)
def test_every_option_is_described_by_a_whole_sentence_with_its_default(words, option):
    _, text = option.get_help_record(context(COMMANDS[words]))
    assert re.fullmatch(r"[A-Z]\w+ .+(\.|\.  \[default: .+\])", text), text
    if not option.is_flag and not option.multiple:
        assert "[default: " in text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_in_the_help_under_a_heading(jawloc, words):
    for flag in ("-h", "--help"):
        result = jawloc(*words, flag)
        assert result.exit_code == 0
        command, said = COMMANDS[words], result.stdout
        listed = re.findall(r"^  (?:-h, )?(--[a-z-]+)", said, flags=re.MULTILINE)
        expected = [
            option.opts[-1]
            for option in command.get_params(context(command))
            if isinstance(option, click.Option)
        ]
        assert sorted(set(listed)) == sorted({*expected, "--help"})
        if not isinstance(command, click.Group):
            headings = re.findall(r"^([A-Z][a-z ]+):$", said, flags=re.MULTILINE)
            assert len(headings) >= 2
            assert "Help and debugging" in headings
            assert "Options" not in headings


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_can_be_parsed(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = examples(COMMANDS[words])
    assert shown
    for program, *arguments in shown:
        inner = tuple(program.split("-")[1:])
        assert program.split("-")[0] == "jawloc"
        while arguments and (*inner, arguments[0]) in COMMANDS:
            inner += (arguments.pop(0),)
        assert inner[: len(words)] == words, "an example of another command"
        COMMANDS[inner].make_context("jawloc", arguments)  # raises where an option is unknown


def test_an_example_with_an_unknown_option_is_found():
    """Shows that the test above can fail."""
    with pytest.raises(click.NoSuchOption):
        cli.train.make_context("jawloc-train", ["--modelname", "x"])
