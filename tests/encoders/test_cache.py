from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoders.cache import VectorCache


def vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array([number, -number], np.float32)


def test_the_least_recently_used_text_leaves() -> None:
    cache = VectorCache(2, 2)
    cache.put("a", vector(1))
    cache.put("b", vector(2))
    cache.get("a")
    cache.put("c", vector(3))
    assert cache.get("b") is None
    np.testing.assert_array_equal(cache.get("a"), [1, -1])
    np.testing.assert_array_equal(cache.get("c"), [3, -3])
    assert len(cache) == 2


def test_a_cache_without_room_holds_nothing() -> None:
    cache = VectorCache(0, 2)
    cache.put("a", vector(1))
    assert cache.get("a") is None
    assert len(cache) == 0


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["get", "put"]), st.sampled_from("abcdef"), st.integers(0, 99))),
)
def test_it_answers_as_an_ordered_dictionary_would(capacity: int, steps: list[tuple[str, str, int]]) -> None:
    cache = VectorCache(capacity, 2)
    expected: OrderedDict[str, int] = OrderedDict()
    for step, key, number in steps:
        if step == "put":
            cache.put(key, vector(number))
            expected[key] = number
            expected.move_to_end(key)
            if len(expected) > capacity:
                expected.popitem(last=False)
        else:
            found = cache.get(key)
            assert (None if found is None else found.tolist()) == (
                [expected[key], -expected[key]] if key in expected else None
            )
            if key in expected:
                expected.move_to_end(key)
        assert len(cache) == len(expected)
