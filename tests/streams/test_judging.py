"""What a model is judged by: nothing that its own card says it has learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoders.training.measure import Measured
from encoders.training.model_card import Measurement, ModelCard, Parent, write_card
from streams.commands.judging import learned_nothing_since

TOPICS = {"searches": "s1", "purchases": "p1", "products": "c1"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def tuned(folder: Path, topics: dict[str, str]) -> str:
    nothing = Measurement(Measured(), Measured())
    card = ModelCard(
        name="ours",
        parent=Parent("MiniLM", "old", ""),
        licence="apache-2.0",
        made_at="2026-01-01T00:00:00+00:00",
        data={"validation_from_ms": 80, "test_from_ms": 90, "until_ms": 100, "topics": topics},
        options={},
        steps=10,
        before=nothing,
        after=nothing,
    )
    write_card(folder, card)
    return str(folder)


def test_of_these_topics_it_is_asked_what_came_after_training_and_validation(model: Path) -> None:
    assert learned_nothing_since(tuned(model, TOPICS), TOPICS) == 90


def test_a_model_of_other_topics_or_without_a_card_has_learned_nothing_of_these(model: Path) -> None:
    assert learned_nothing_since(str(model), TOPICS) == 0
    assert learned_nothing_since(tuned(model, {**TOPICS, "searches": "another"}), TOPICS) == 0
