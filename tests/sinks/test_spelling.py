"""A misspelt word is read as the catalogue spells it; what isn't misspelt is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.spelling import MOST_WORDS, NO_VOCABULARY, Vocabulary, respelt

TITLES = [
    "Walking Boots leather",
    "Walking boots, suede",
    "Hiking boot laces",
    "Ceiling fan with light",
    "Ceiling paint",
    "Sealing tape",
    "Light bulb",
    "Pressure washer",
    "Küchenmesser",
    "Палатка туристическая",
    "水筒カバー",
    "Mira Z400 charger",
]
VOCABULARY = Vocabulary.of(TITLES)


def read(text: str, vocabulary: Vocabulary = VOCABULARY) -> str:
    return respelt(text, vocabulary.doubts(text))


@pytest.mark.parametrize(
    ("typed", "read_as"),
    [
        ("walkin boots", "walking boots"),
        ("Wlaking Boots", "walking Boots"),
        ("leatherr  boots", "leather  boots"),
        ("presure wahser", "pressure washer"),
        ("prssre", "prssre"),  # two edits are too much for six letters
        ("presre", "presre"),
        ("pressrue-washer", "pressure-washer"),
        ("lightbulb", "light bulb"),
        ("kuchenmesser", "küchenmesser"),
        ("палтка", "палатка"),
    ],
)
def test_a_misspelt_word_is_read_as_the_catalogue_spells_it(typed: str, read_as: str) -> None:
    assert read(typed) == read_as


def test_of_words_as_likely_mistaken_the_one_in_more_products_is_meant() -> None:
    assert read("tont", Vocabulary({"tint": 1, "tent": 3})) == "tent"
    assert read("tont", Vocabulary({"tint": 1, "wont": 15})) == "tint", "a first letter is seldom mistaken"
    assert read("tentpole", Vocabulary({"tent": 9, "pole": 9, "tadpole": 1})) == "tent pole"
    assert read("tentpols", Vocabulary({"tent": 1, "pols": 9, "tadpoles": 9, "tentpolls": 9})) == "tentpolls"


@pytest.mark.parametrize(
    "typed",
    [
        *("walking boots", "walking boot", "LACES", "lace", "bulbs", "fan"),  # known, in either number
        *("fna", "bot"),  # three letters may be anything
        *("mira z40o charger", "washr20v", "w4shing"),  # letters beside a digit
        *("水筒カバン", "12345", "z400", "?!", ""),
        *("telescope", "xylophone"),  # like nothing here
    ],
)
def test_known_words_codes_numbers_and_other_scripts_stay(typed: str) -> None:
    assert VOCABULARY.doubts(typed) == {}


def test_a_catalogue_of_which_nothing_is_known_puts_nothing_in_doubt() -> None:
    assert NO_VOCABULARY.doubts("walkin boots") == {}


def test_each_product_counts_once_for_a_word() -> None:
    assert Vocabulary.of(["tent, tent pegs", "Tent"]).products == {"tent": 2, "pegs": 1}


def test_of_too_many_words_those_of_the_most_products_are_kept() -> None:
    words = ["".join(chr(97 + (number // 26**place) % 26) for place in range(4)) for number in range(MOST_WORDS + 7)]
    vocabulary = Vocabulary(dict.fromkeys(words, 1) | {"tents": 2})
    assert len(vocabulary.products) == MOST_WORDS
    assert next(iter(vocabulary.products)) == "tents"


@given(st.text() | st.text(st.sampled_from("walkingbots 1-é"), max_size=40))
def test_only_words_that_no_product_has_are_read_otherwise_and_as_words_that_one_has(text: str) -> None:
    for word, reading in VOCABULARY.doubts(text).items():
        assert word not in VOCABULARY.products
        assert all(part in VOCABULARY.products for part in reading.split(" "))
