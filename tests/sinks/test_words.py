"""The words of texts."""

import pytest

from sinks.words import product_words, query_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Walking Boots", ["walking", "boot"]),
        ("60in. x 4-ft glass", ["60", "in", "x", "4", "ft", "glass"]),
        ("Xbox360 games", ["xbox", "360", "game"]),
        ("Straße ÉTÉ 水筒", ["strasse", "été", "水筒"]),
        ("bus gas its", ["bus", "gas", "its"]),
        ("... _ --", []),
    ],
)
def test_words_are_letters_or_digits_in_lower_case_without_a_plurals_s(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_query_has_each_of_its_words_once() -> None:
    assert query_words("boots for boots").weights.tolist() == [1.0, 1.0]
    assert query_words("boots for boots").ids.tolist() == sorted(
        [*query_words("for").ids.tolist(), *query_words("boot").ids.tolist()]
    )
    assert query_words("?!").ids.tolist() == []


def test_a_word_weighs_more_the_more_often_a_text_has_it_and_the_shorter_the_text_is() -> None:
    def weight(text: str) -> float:
        words = product_words(text)
        return dict(zip(words.ids.tolist(), words.weights.tolist(), strict=True))[query_words("boot").ids[0]]

    filler = " a b c d e f g h i"
    assert weight("boot" + filler) == pytest.approx(1.0)  # of the usual length: 1.6 / (1 + 0.6)
    assert weight("boot boot" + filler[2:]) == pytest.approx(2 * 1.6 / 2.6)
    assert weight("boot" + 2 * filler) < 1.0 < weight("boot")
