"""Files of events: JSON lines, plain or compressed, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from streams.zstandard_file import ZstandardFile

MAX_LINE: Final = 1_000_000


class UnreadableFile(Exception):
    """A file that is damaged, or cut off: what is wrong, and after which line."""


@contextmanager
def opened(name: str) -> Iterator[tuple[BinaryIO, Callable[[], int], int | None]]:
    """The file's lines, uncompressed; how far it has been read, and its size (bytes on disk, None if unknown)."""
    if name == "-":
        yield sys.stdin.buffer, lambda: 0, None
        return
    path = Path(name)
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        content: BinaryIO = raw
        if path.suffix == ".gz":
            content = stack.enter_context(cast(BinaryIO, gzip.GzipFile(fileobj=raw)))
        elif path.suffix in (".zst", ".zstd"):
            content = stack.enter_context(cast(BinaryIO, io.BufferedReader(ZstandardFile(raw), 1 << 17)))
        yield content, raw.tell, path.stat().st_size


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without the white space around them; blank ones left out.

    Memory is bounded: of a line longer than `MAX_LINE` only a piece comes, which is still too long. Raises
    UnreadableFile where the file can't be read on.
    """
    number = 0
    try:
        while line := file.readline(MAX_LINE + 2):
            number += 1
            if not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # the mark some editors put before UTF-8
            if line.endswith(b"\n") or len(line) <= MAX_LINE:
                line = line.strip()
            if line:
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(f"{name} can't be read after line {number}: {error}") from error
