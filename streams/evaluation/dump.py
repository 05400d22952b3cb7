"""What Afterglow recommended, a JSON line a task, so that anyone can score it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from streams.evaluation.rounds import AFTERGLOW, Round


def dumped(rounds: Sequence[Round]) -> Iterator[bytes]:
    """Lines of `task`, `user_id`, `ts` (of what happened then, ms), `query` where it is given, `items` and
    `new_only_items` (without what the user bought before), both as `afterglow recommend --json` has them.
    """
    for round_ in rounds:
        for task, lists in zip(round_.tasks, round_.lists[AFTERGLOW], strict=True):
            line: dict[str, object] = {"task": round_.kind, "user_id": task.user_id, "ts": task.ts}
            if task.query:
                line["query"] = task.query
            line["items"] = [{"product_id": item} for item in lists.mixed]
            if not task.query:
                line["new_only_items"] = [{"product_id": item} for item in lists.new_only]
            yield msgspec.json.encode(line) + b"\n"
