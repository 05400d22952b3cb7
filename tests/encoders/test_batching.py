from hypothesis import given
from hypothesis import strategies as st

from encoders.batching import next_batch

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def test_the_oldest_text_and_its_nearest_in_length() -> None:
    assert next_batch([5, 9, 4, 30, 6], 16) == [2, 0, 4]


def test_with_padding_each_text_costs_what_the_longest_does() -> None:
    assert next_batch([5, 9, 4, 30, 6], 16, padded=True) == [2, 0]


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    assert next_batch([500, 3], 100) == [0]


def test_nothing_waits() -> None:
    assert next_batch([], 100) == []


@given(lengths, st.integers(1, 100), st.booleans())
def test_a_batch_holds_the_oldest_within_the_budget_shortest_first(
    waiting: list[int], budget: int, padded: bool
) -> None:
    batch = next_batch(waiting, budget, padded=padded)
    sizes = [waiting[i] for i in batch]
    assert 0 in batch
    assert len(set(batch)) == len(batch)
    assert sizes == sorted(sizes)
    assert len(batch) == 1 or (len(batch) * max(sizes) if padded else sum(sizes)) <= budget


@given(lengths, st.integers(1, 100), st.booleans())
def test_every_text_is_encoded_exactly_once(waiting: list[int], budget: int, padded: bool) -> None:
    left = list(range(len(waiting)))
    encoded: list[int] = []
    while left:
        batch = {left[i] for i in next_batch([waiting[i] for i in left], budget, padded=padded)}
        encoded += batch
        left = [i for i in left if i not in batch]
    assert sorted(encoded) == list(range(len(waiting)))


@given(lengths)
def test_no_text_fits_in_beside_a_batch_that_left_it_out_though_it_is_nearer(waiting: list[int]) -> None:
    batch = next_batch(waiting, 50)
    left_out = set(range(len(waiting))) - set(batch)
    furthest = max(abs(waiting[i] - waiting[0]) for i in batch)
    assert all(abs(waiting[i] - waiting[0]) >= furthest for i in left_out)
