"""`afterglow replay --model`: a model that is worse is not even replayed, unless somebody insists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sinks.collections import Generation, Model
from streams.commands import judging, main, own_encoder
from streams.commands import replay as replay_command
from streams.commands.judging import InService, ModelNotHere
from streams.evaluation.bootstrap import Interval
from streams.evaluation.comparison import Measure
from streams.replay import Replayed
from streams.rollout.judgement import Judgement
from streams.settings import Settings

Run = Callable[..., tuple[int, str]]

WORSE = Measure("query", "mrr", True, 0.5, 0.4, Interval(-0.1, -0.15, -0.05))
AS_GOOD = Measure("query", "mrr", True, 0.5, 0.49, Interval(-0.01, -0.03, 0.01))
REPLAYED = Replayed(
    generation="g2", served=True, events=1, dead_letters=0, profiles_written=1, seconds=1, seconds_folding=1, behind=0
)


class Description:
    identity = "new"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command beside a model in service, with what it is to be judged by: exit code, and what was said."""
    for name in [name for name in os.environ if name.startswith("AFTERGLOW_")]:
        monkeypatch.delenv(name)

    @contextmanager
    def encoding_with(settings: Settings, model: str) -> Iterator[Settings]:
        yield settings

    async def replayed(*_: object, **__: object) -> Replayed:
        return REPLAYED

    monkeypatch.setattr(own_encoder, "encoding_with", encoding_with)
    monkeypatch.setattr(replay_command, "replay", replayed)
    monkeypatch.setattr(judging, "described", lambda _: Description)

    def call(
        *measures: Measure,
        arguments: tuple[str, ...] = (),
        begun: frozenset[str] = frozenset(),
        failure: Exception | None = None,
    ) -> tuple[int, str]:
        def judged(*_: object) -> Judgement:
            if failure is not None:
                raise failure
            return judgement

        generation = Generation("main", Model("MiniLM", "old", 3), "secret", {}, 1)
        judgement = Judgement(
            identity="new", against="old", topics={}, made_at=1, events=9, cut=0, tasks=9, measures=[*measures]
        )
        monkeypatch.setattr(judging, "in_service", lambda _: InService(generation, begun))
        monkeypatch.setattr(judging, "judged", judged)
        with pytest.raises(SystemExit) as left:
            main(["replay", "--data-dir", str(tmp_path), "--model", "models/ours", *arguments])
        return int(left.value.code or 0), capfd.readouterr().err

    return call


def test_what_is_worse_beyond_doubt_is_refused_by_measure_and_amount(run: Run) -> None:
    assert run(WORSE, AS_GOOD) == (
        1,
        "error: models/ours is worse than MiniLM, which generation main serves, at what customers did since "
        "1970-01-01 00:00:00 UTC. Query → clicked product, by texts alone, MRR@20: 0.400 instead of 0.500 (-0.100, "
        "95% -0.150 to -0.050). Nothing was changed. Train it on, or insist (--force)\n",
    )


def test_it_is_replayed_when_somebody_insists_or_a_replay_of_it_has_begun(run: Run) -> None:
    assert run(WORSE, arguments=("--force",)) == (0, "")
    assert run(WORSE, begun=frozenset({"new"})) == (0, "")


def test_what_is_as_good_is_replayed_and_its_worth_said(run: Run) -> None:
    code, said = run(AS_GOOD)
    assert code == 0
    assert "MRR@20: 0.490 instead of 0.500 (-0.010, 95% -0.030 to +0.010)" in said
    assert "too little happened lately to compare it with the model in service" in run()[1]


def test_beside_a_model_that_is_not_here_it_is_replayed_only_when_somebody_insists(run: Run) -> None:
    gone = ModelNotHere("the model in service is not on this machine")
    assert run(failure=gone) == (1, "error: the model in service is not on this machine, or insist (--force)\n")
    assert run(failure=gone, arguments=("--force",)) == (0, "")
