"""How much a query says about what its writer wants, judged by its text alone. Pure: no settings, no model, no state.

Rules of high precision for what shoppers' search boxes really receive: links of campaigns, product numbers pasted or
scanned, addresses, markup, mashed keys. What is merely rare is wanted: a brand, a model's name, a misspelt word, any
language and script. Whether a catalogue knows a word, and whether a query fits its writer, is not to be seen here.

A generation records `RULES`: change a rule, and it is another version of them.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from encoders.text import clean

RULES: Final = 1
"""The version of these rules, and of those by which the fold damps a machine's traffic."""

LONGEST_TITLE: Final = 200
"""A query of more characters says less the longer it is. Of 106,000 titles of four shops the longest has 147."""


class Reason(StrEnum):
    """Why a query weighs less."""

    ADDRESS = "address"
    PRODUCT_NUMBERS = "product_numbers"
    CAMPAIGN = "campaign_code"
    MARKUP = "markup"
    CONTROL_CHARACTERS = "control_characters"
    OVERLONG = "overlong"
    GIBBERISH = "gibberish"
    NO_WORDS = "no_words"


class Assessment(NamedTuple):
    """`confidence` in [0, 1] scales a query's weight; 0: it is not worth remembering. Below 1 there is a `reason`."""

    confidence: float
    reason: Reason | None


WANTED: Final = Assessment(1.0, None)


@lru_cache(maxsize=16_384)  # queries repeat: on a shop's site 21,592 searches were 3,831 texts
def assess(query: str) -> Assessment:
    """What the raw text of a query is worth. An empty one is no noise: there is nothing to weigh."""
    text = clean(query)
    if (reason := _reason_of_form(query, text)) is not None:
        return Assessment(0.0, reason)
    if _CONTROL.search(query):
        return Assessment(0.5, Reason.CONTROL_CHARACTERS)
    if _TAG.search(query):
        return Assessment(0.5, Reason.MARKUP)
    if len(text) > LONGEST_TITLE:
        return Assessment(LONGEST_TITLE / len(text), Reason.OVERLONG)
    return WANTED


def _reason_of_form(query: str, text: str) -> Reason | None:
    """Why nothing of the query is worth remembering; None where something may be."""
    if _PROBE.search(query):
        return Reason.MARKUP
    if not text:
        return None if not query.strip() else Reason.MARKUP if _TAG.search(query) else Reason.CONTROL_CHARACTERS
    unreadable = len(_CONTROL.findall(query)) + query.count("\N{REPLACEMENT CHARACTER}")
    if unreadable > 1 and unreadable > len(query) / 4:
        return Reason.CONTROL_CHARACTERS
    if _ADDRESS.search(text):
        return Reason.ADDRESS
    tokens = _SEPARATOR.split(_NUMBER_OF.sub("", text).strip(" #,;|/"))
    if all(map(_LONG_NUMBER.fullmatch, tokens)) or (len(tokens) >= 3 and all(map(_is_article_code, tokens))):
        return Reason.PRODUCT_NUMBERS
    if _is_campaign(text):
        return Reason.CAMPAIGN
    if not _has_words(text):
        return Reason.NO_WORDS
    words = text.split()
    if all(map(_is_gibberish, words)):
        return Reason.GIBBERISH
    return None


_TAG: Final = re.compile(r"<[a-zA-Z/!][^<>]*>")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")  # without tab and ends of lines
_PROBE: Final = re.compile(
    r"<\s*/?(?:script|iframe|svg|img|object|embed)\b|javascript:|\bunion\s+(?:all\s+)?select\b"
    r"|['\"]\s*(?:or|and)\s+['\"]?\d+['\"]?\s*=|\$\{jndi:|\.\./\.\./",
    re.IGNORECASE,
)
"""What scanners of websites send."""

_ADDRESS: Final = re.compile(
    r"(?:\bhttps?|\bftp)\s?:\s?//\s?\S|\bwww\.\w"
    r"|^\S+@[\w-]+(?:\.[\w-]+)+$"
    r"|^(?:[\w-]+\.)+[a-z]{2,}/\S*$"
    r"|^[\w-]{2,}(?:\.[\w-]+)*\.(?:com|org)$",
    re.IGNORECASE,
)

_NUMBER_OF: Final = re.compile(
    r"\b(?:sku|upc|ean|gtin|isbn|asin|items?|art(?:icle)?|products?)\b[\s.:#]*(?=[\d#])", re.I
)
_SEPARATOR: Final = re.compile(r"[\s,;|/#]+")
_LONG_NUMBER: Final = re.compile(r"\d{5,}|(?=(?:-?\d){9,}-?X?$)\d+(?:-\d+){2,}(?:-X)?", re.ASCII)
"""Of five digits or more (1080, 2012, 360 and 007 are words of shoppers), or in groups, as an ISBN is."""


def _is_article_code(token: str) -> bool:
    """Letters with at least three digits, or digits: one is a model's name, a list is nobody's taste."""
    return len(token) >= 5 and token.isascii() and sum(map(str.isdigit, token)) >= 3 and "." not in token


_CAMPAIGN_DATE: Final = re.compile(r"(?:^|[_-])20\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])?(?:[_-]|$)")
_CAMPAIGN_WORD: Final = re.compile(
    r"[a-z](?:Sale|Deal|Day|Week|Weekend|Promo|Promotion|Offer|Event|Clearance|Launch|Banner|Newsletter|Campaign)s?(?![a-z])"
)
_TRACKING: Final = re.compile(r"\b(?:utm_\w+|gclid|fbclid|cmpid|cid|promo_?code)\s?=", re.IGNORECASE)


def _is_campaign(text: str) -> bool:
    """Parts joined by underscores of which one is a date or ends, in camel case, as a sale does; or tracking."""
    if _TRACKING.search(text):
        return True
    return " " not in text and "_" in text and bool(_CAMPAIGN_DATE.search(text) or _CAMPAIGN_WORD.search(text))


def _has_words(text: str) -> bool:
    """Whether anything is meant: a word of any script or a symbol that stands for one, or a number of three digits."""
    letters = [character for character in text if character.isalpha()]
    if len(letters) == 1:
        return not letters[0].isascii() or sum(map(str.isdigit, text)) > 0  # a Han character is a word, "f1" a name
    if letters:
        return True
    return sum(map(str.isdigit, text)) >= 3 or any(unicodedata.category(character) == "So" for character in text)


_ROWS: Final = "qwertyuiop asdfghjkl zxcvbnm yxcvbnm qsdfghjklm wxcvbn"  # of English, German and French keyboards
_WALKS: Final = _ROWS + " " + _ROWS[::-1]
_KEYBOARDS: Final = frozenset(("qwerty", "qwertz", "azerty"))
_HELD: Final = re.compile(r"(.)\1{4,}")
_AGAIN: Final = re.compile(r"(.{2,4}?)\1+")
_SIZE: Final = re.compile(r"x+[sl]")
_UNHEARD: Final = re.compile(r"(?=[jqx][jqz]|[jq]x|z[jqx]|[jq][bcdfgkpvw]|[bcdfghkmpvw][jq]|v[bcdfgkpqw]|[fgkw]v)")
"""Pairs of letters that hardly any language writes. One may meet where two words do; two in a word are a mash."""


def _is_gibberish(word: str) -> bool:
    """Keys mashed or held down. Only of ASCII letters is it known what never makes a word."""
    word = word.casefold().strip(".,;:!?'\"")
    if len(word) < 4 or not word.isascii() or not word.isalpha() or word in _KEYBOARDS or _SIZE.fullmatch(word):
        return False
    held, again = _HELD.search(word), _AGAIN.fullmatch(word)
    return (
        (held is not None and len(held[0]) * 4 >= len(word) * 3)
        or _walked(word) * 4 >= len(word) * 3
        or (again is not None and len(word) >= 6 and (again[1] in _WALKS or not _has_vowel(again[1])))
        or (len(word) >= 7 and not _has_vowel(word))
        or (len(word) >= 6 and len(_UNHEARD.findall(word)) >= 2)
    )


def _walked(word: str) -> int:
    """How many of its letters lie in runs of four or more along a row of the keyboard."""
    walked = {at + step for at in range(len(word) - 3) if word[at : at + 4] in _WALKS for step in range(4)}
    return len(walked)


def _has_vowel(word: str) -> bool:
    return any(letter in "aeiouy" for letter in word)
