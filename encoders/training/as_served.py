"""A model folder measured as it is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders import model as serving
from encoders.protocol import TextKind
from encoders.recipe import Recipe
from encoders.text import clean
from encoders.training.measure import Encode, Vectors, catalogue_of, measure
from encoders.training.model_card import Measurement
from encoders.training.pairs import Examples, Seen


def measured_as_served(folder: Path, recipe: Recipe, examples: Examples, seen: Seen, device: str) -> Measurement:
    """Raises ModelError."""
    encode = _encode(folder, recipe, device)
    catalogue = catalogue_of(examples, encode)
    return Measurement(
        measure(catalogue, encode, examples.validation, seen), measure(catalogue, encode, examples.test, seen)
    )


def _encode(folder: Path, recipe: Recipe, device: str) -> Encode:
    model = serving.load(
        str(folder),
        device=device,
        query_prefix=recipe.prefixes[TextKind.QUERY],
        product_prefix=recipe.prefixes[TextKind.PRODUCT],
    )

    def encode(texts: Sequence[str], kind: TextKind) -> Vectors:
        tokens = model.tokenise([model.input_text(clean(text), kind) for text in texts])
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.empty((len(tokens), model.description.dimension), np.float32)
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            vectors[rows] = model.launch([tokens[i] for i in rows]).vectors()
        return vectors

    return encode
