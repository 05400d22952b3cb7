"""The operator's secret, which the ids of points are made with."""

from __future__ import annotations

from pathlib import Path


class NoSecret(ValueError):
    """There is no secret where it should be, or it can't be read."""


def read_secret(file: Path) -> bytes:
    """The secret of hexadecimal digits in `file`. Raises NoSecret: making one here would lose every profile."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise NoSecret(
            f"there is no secret at {file}: `afterglow up` makes one on its first start; give its file by "
            "AFTERGLOW_SECRET_FILE to what runs elsewhere"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise NoSecret(f"the secret at {file} can't be read: {error}") from None
    try:
        return bytes.fromhex(text.strip())
    except ValueError as error:
        raise NoSecret(f"the secret at {file} is not hexadecimal: {error}") from None
