"""What a model is judged by: nothing that its own card says it has learned from, and vectors of the right model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import pytest

from encoders.model import load as load_model
from encoders.protocol import ModelDescription
from encoders.training.measure import Measured
from encoders.training.model_card import Measurement, ModelCard, Parent, write_card
from sinks.collections import Generation, Model
from streams.commands import judging
from streams.commands.judging import encoding_as, learned_nothing_since
from streams.settings import Settings, changed
from streams.settings import load as load_settings

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


def test_where_no_encoding_worker_has_the_model_the_command_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = load_model("", device="cpu").description
    model = Model(packaged.name, packaged.identity, packaged.dimension)
    generation = Generation("main", model, "secret", {}, 1)
    settings = load_settings(environment={})

    @contextmanager
    def encoding_with(settings: Settings, _: str) -> Iterator[Settings]:
        yield changed(settings, {"encoder.address": "unix:///own.sock"})

    def described(settings: Settings) -> ModelDescription:
        if settings.encoder.address == "unix:///nobody.sock":
            raise click.ClickException("the encoding worker did not answer in 10 s")
        same = settings.encoder.address == "unix:///same.sock"
        return packaged if same else msgspec.structs.replace(packaged, identity="another")

    monkeypatch.setattr(judging, "encoding_with", encoding_with)
    monkeypatch.setattr(judging, "described", described)
    for address, used in (("same", "same"), ("another", "own"), ("nobody", "own")):
        asked = changed(settings, {"encoder.address": f"unix:///{address}.sock"})
        with encoding_as(asked, generation) as found:
            assert found.encoder.address == f"unix:///{used}.sock"
    nowhere = msgspec.structs.replace(generation, model=msgspec.structs.replace(model, identity="gone"))
    with pytest.raises(click.ClickException, match=r"the model in service, .* \(gone\), is not on this machine"):
        encoding_as(settings, nowhere).__enter__()
