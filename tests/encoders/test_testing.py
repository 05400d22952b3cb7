import inspect

import numpy as np
import pytest

from encoders.client import EncoderClient, EncoderError, TextKind
from encoders.testing import WordHashEncoder


async def test_texts_that_share_words_are_alike() -> None:
    vectors = await WordHashEncoder().encode(["red shoe", "Shoe  red", "red hat", "usb cable"], TextKind.QUERY)
    likeness = vectors @ vectors[0]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(likeness, [1, 1, 0.5, 0], atol=0.15)


async def test_it_is_the_same_in_every_process() -> None:
    vector = (await WordHashEncoder(4).encode(["red"], TextKind.PRODUCT))[0]
    np.testing.assert_allclose(vector, [-0.2040416, 0.413132, 0.4766764, 0.7486445], atol=1e-6)


async def test_it_refuses_what_the_client_refuses() -> None:
    with pytest.raises(EncoderError, match=r"texts\[1\]"):
        await WordHashEncoder().encode(["red", " "], TextKind.QUERY)
    assert (await WordHashEncoder().encode([], TextKind.QUERY)).shape == (0, 384)


@pytest.mark.parametrize("method", ["describe", "encode", "statistics", "close"])
def test_it_has_the_clients_methods(method: str) -> None:
    assert inspect.signature(getattr(WordHashEncoder, method)) == inspect.signature(getattr(EncoderClient, method))
