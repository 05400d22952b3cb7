"""Which of the waiting texts go into the next batch: bounded by tokens, near in length, nobody left behind."""

from collections.abc import Sequence


def next_batch(lengths: Sequence[int], budget: int, *, padded: bool = False) -> list[int]:
    """Indices of the texts to encode now, shortest first.

    `lengths` are the waiting texts' token counts in order of arrival. The batch is the oldest text and those
    nearest to it in length, as many as `budget` tokens hold; with `padded` each counts as long as the
    longest of the batch, as a padded model computes it. Guarantees: empty only if `lengths` is; the oldest text
    (index 0) is in it, so a text waits for at most as many batches as there were texts before it; within the
    budget, unless the oldest text alone exceeds it.
    """
    nearest = sorted(range(len(lengths)), key=lambda i: abs(lengths[i] - lengths[0]))
    taken = tokens = longest = 0
    for i in nearest:
        tokens += lengths[i]
        longest = max(longest, lengths[i])
        if taken and ((taken + 1) * longest if padded else tokens) > budget:
            break
        taken += 1
    return sorted(nearest[:taken], key=lengths.__getitem__)
