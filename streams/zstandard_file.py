"""A zstandard file read as a stream that, unlike zstandard's own, notices when it was cut off."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

import zstandard

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CHUNK: Final = 1 << 17


class ZstandardFile(io.RawIOBase):
    """The content of one or more frames. Raises `EOFError` where the file ends inside a frame, `OSError` for damage."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer)
        while not self._ready:
            data = self._raw.read(_CHUNK)
            if not data:
                if self._inside:
                    raise EOFError("the file ends inside a zstandard frame")
                return 0
            self._ready = memoryview(self._decompressed(data))
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompressed(self, data: bytes) -> bytes:
        content = []
        try:
            while data:
                content.append(self._frame.decompress(data))
                self._inside, data = not self._frame.eof, self._frame.unused_data
                if self._frame.eof:
                    self._frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        return b"".join(content)
