import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.text import MAX_CHARACTERS, clean, normalise


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("usb c cable", "usb c cable"),
        ("  usb \t c\n\ncable ", "usb c cable"),
        ("iPad Case", "iPad Case"),
        ("Café crème", "Café crème"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("ｕｓｂ　ｃａｂｌｅ", "usb cable"),
        ("½ inch", "1⁄2 inch"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt & pepper &co; R&D", "salt & pepper &co; R&D"),
        ("<b>Bold</b><br/>new", "Bold new"),
        ("&amp;lt;b&amp;gt;twice escaped", "twice escaped"),
        ("tv < 50 inch, i <3 it", "tv < 50 inch, i <3 it"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07and\x00null", "bell and null"),
        ("lone \ud800surrogate", "lone surrogate"),
        ("&#65;&#x42;&#0;&#xD800;C", "AB C"),
        ("无线耳机", "无线耳机"),
        ("", ""),
        (" \t\n", ""),
        ("<br><p>", ""),
        ("\u200b", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "key"),
    [("IPad  Case", "ipad case"), ("STRASSE straße", "strasse strasse"), ("ΣΊΣΥΦΟΣ", "σίσυφοσ"), ("<b></b>", "")],
)
def test_normalise(text: str, key: str) -> None:
    assert normalise(text) == key


def test_a_text_is_bounded_at_a_character_not_in_a_blank() -> None:
    assert clean("x" * 5000) == "x" * MAX_CHARACTERS
    assert clean("x" * 999 + "  y") == "x" * 999
    assert clean("é" * 999 + "  y") == "é" * 999


pieces = st.sampled_from(
    ["&", "amp;", "lt;", "gt;", "#60;", "<", ">", "b", "/", " ", "\u0301", "\u200d", "\u0345", "\ufb03"]
)
texts = st.one_of(st.text(), st.lists(pieces).map("".join), st.text(st.sampled_from("ab <&>;é"), min_size=990))


@given(texts)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(texts)
def test_a_cleaned_text_has_the_key_of_the_original(text: str) -> None:
    assert normalise(clean(text)) == normalise(text)


@given(texts)
def test_a_cleaned_text_is_bounded_and_can_be_sent(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) <= MAX_CHARACTERS
    assert cleaned == cleaned.strip()
    assert cleaned.encode().decode() == cleaned
