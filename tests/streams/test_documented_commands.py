"""Every command line that README and docs show is one that `afterglow` understands."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from documented import blocks

from streams.commands import COMMANDS, afterglow

DOCUMENTS = {
    "README.md": 10,
    "docs/guarantees.md": 10,
    "docs/capacity.md": 10,
    "docs/training.md": 4,
}  # and how many, at least
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")


def command_lines(document: str) -> list[str]:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return [line for line in lines if "afterglow " in line.split("#")[0]]


def words_of(line: str) -> list[str]:
    words = [word for word in shlex.split(line, comments=True) if word != "&"]
    while _ASSIGNMENT.fullmatch(words[0]):
        del words[0]
    return words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_is_understood(document: str) -> None:
    lines = [words_of(line) for line in command_lines(document)]
    lines = [words for words in lines if words[0] == "afterglow"]
    assert len(lines) >= DOCUMENTS[document]
    for _, *arguments in lines:
        context = click.Context(afterglow)
        command: click.Command | None = afterglow
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            name, command, arguments = command.resolve_command(context, arguments)
            assert name is not None
        assert command is not None
        _, left, _ = command.make_parser(click.Context(command)).parse_args(args=list(arguments))
        assert left == [], arguments


def test_what_is_not_understood_is_found() -> None:
    verify = afterglow.get_command(click.Context(afterglow), "verify")
    assert verify is not None
    with pytest.raises(click.NoSuchOption):
        verify.make_parser(click.Context(verify)).parse_args(args=["--generations", "g2"])
    assert "verifies" not in COMMANDS
