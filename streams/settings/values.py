"""What a value may be that TOML has no word for: a secret, a length of time."""

from __future__ import annotations

import re
from typing import Final


class InvalidSettings(ValueError):
    """A setting is unknown or its value can't be used: which, where it was found, and what is expected."""


class Secret:
    """A text that is never shown: only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "***" if self._text else ""

    __repr__ = __str__


_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


class Duration:
    """A length of time in whole milliseconds, written with its unit: 20ms, 5s, 10m, 1h, 30d."""

    __slots__ = ("milliseconds",)
    milliseconds: int

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds

    @property
    def seconds(self) -> float:
        return self.milliseconds / 1000

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Raises `ValueError` where `text` is not a number and a unit."""
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise ValueError("expected a duration with its unit, like 20ms, 5s, 10m, 1h or 30d")
        milliseconds = float(match[1]) * _UNITS_MS[match[2]]
        if milliseconds != int(milliseconds):
            raise ValueError("expected whole milliseconds")
        return cls(int(milliseconds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.milliseconds == self.milliseconds

    def __hash__(self) -> int:
        return hash(self.milliseconds)

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            count, rest = divmod(self.milliseconds, _UNITS_MS[unit])
            if count and not rest:
                return f"{count}{unit}"
        return f"{self.milliseconds}ms"

    def __repr__(self) -> str:
        return f"Duration({self})"


class Retention(Duration):
    """How long Kafka keeps events: a duration, or `unlimited` (-1 milliseconds, as Kafka has it)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Retention:
        return cls(-1) if text.strip() == "unlimited" else cls(Duration.parse(text).milliseconds)

    def __str__(self) -> str:
        return "unlimited" if self.milliseconds < 0 else super().__str__()
