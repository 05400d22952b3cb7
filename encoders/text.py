"""What a text is reduced to before it is encoded, and the key by which a query is remembered.

Pure functions of their argument: no settings, no model. Both are idempotent, so a text that was cleaned
by the producer, the worker and the client is the same text.
"""

import re
import unicodedata
from html.entities import html5

MAX_CHARACTERS = 1000
"""Length bound of a cleaned text. Encoders read 128 to 512 tokens; what lies beyond never reached a vector."""

_MAX_RAW_CHARACTERS = 16_000
_TAG = re.compile(r"<[a-zA-Z/!][^<>]*>")
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_SUSPICIOUS = re.compile(r"[<&]|[^ -~]|  ")
_FORMAT_CATEGORIES = frozenset(("Cf", "Cs", "Co"))


def clean(text: str) -> str:
    """The text that is encoded: at most `MAX_CHARACTERS` characters, possibly "".

    Compatibility forms are folded (NFKC), HTML tags and complete entities (`&amp;`) taken out, control characters
    become spaces, invisible ones (zero-width, surrogates, private use) go, and white space is folded. Letter case,
    accents and punctuation stay: whether they matter is the model's own tokenizer's business.
    """
    text = text[:_MAX_RAW_CHARACTERS]
    if _SUSPICIOUS.search(text) is None:  # printable ASCII, which most queries are
        return text.strip()[:MAX_CHARACTERS].rstrip()
    previous = None
    while text != previous:  # one pass can uncover the next: "&amp;lt;b&amp;gt;", a full-width "<b>"
        previous = text
        text = _ENTITY.sub(_entity, _TAG.sub(" ", text))
        text = unicodedata.normalize("NFKC", "".join(map(_visible, text)))
    return " ".join(text.split())[:MAX_CHARACTERS].rstrip()


def normalise(text: str) -> str:
    """The history key of a query: cleaned and case-folded, so that "IPad  Case" and "ipad case" are one key."""
    return clean(clean(text).casefold())


def _entity(match: re.Match[str]) -> str:
    name = match[1]
    if name.startswith("#"):
        code = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
        return chr(code) if 0 < code <= 0x10FFFF else " "
    return html5.get(f"{name};", match[0])


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    category = unicodedata.category(character)
    if category == "Cc":
        return " "
    return "" if category in _FORMAT_CATEGORIES else character
