"""Judgements: how relevant a product is to a query, as JSON lines `{"query", "product_id", "relevance"}`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from encoders.training.pairs import TrainingError
from streams.event_files import MAX_LINE, lines, opened
from streams.events import Identifier, Text


class Label(msgspec.Struct, frozen=True):
    """`relevance` is on any scale; the more, the better the product answers the query."""

    query: Text
    product_id: Identifier
    relevance: Annotated[float, msgspec.Meta(ge=0)]


def read_labels(name: str) -> list[Label]:
    """Of a file, plain, .gz or .zst. Raises TrainingError, which names the line, and `UnreadableFile`."""
    if not Path(name).is_file():
        raise TrainingError(f"there is no file {name}")
    labels = []
    with opened(name) as (content, _, _):
        for number, line in lines(content, name):
            try:
                if len(line) > MAX_LINE:
                    raise msgspec.ValidationError(f"longer than {MAX_LINE} bytes")
                labels.append(msgspec.json.decode(line, type=Label))
            except msgspec.MsgspecError as error:
                raise TrainingError(
                    f'{name}:{number} is not {{"query": …, "product_id": …, "relevance": …}}: {error}'
                ) from None
    return labels
