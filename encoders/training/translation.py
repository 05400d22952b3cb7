"""Back-translation: what somebody typed, said otherwise by way of another language (Sennrich et al. 2016, arXiv
1511.06709). The operator gives the two models; none comes with Afterglow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from encoders.errors import ModelError
from encoders.model import device_of
from encoders.text import normalise

if TYPE_CHECKING:
    from encoders.training.learning import Report

_AT_ONCE: Final = 64
_LONGEST: Final = 64  # tokens of a translation


def there_and_back(
    queries: Sequence[str], there: Path, back: Path, *, device: str, report: Report = lambda *_: None
) -> dict[str, list[str]]:
    """By query what `there` and then `back` make of it, where that is something else.

    `there` and `back` are folders of sequence-to-sequence models as transformers loads them (MarianMT, T5, mBART),
    with their tokenizers. Each chooses its likeliest word: the same queries give the same.

    Raises ModelError where a folder holds no such model.
    """
    translated: Sequence[str] = queries
    for part, folder in enumerate((there, back)):
        translate = _translator(folder, device)
        found: list[str] = []
        for start in range(0, len(translated), _AT_ONCE):
            report("translating queries there and back", part * len(queries) + start, 2 * len(queries))
            found += translate(translated[start : start + _AT_ONCE])
        translated = found
    others = zip(queries, (normalise(text) for text in translated), strict=True)
    return {query: [other] for query, other in others if other and other != query}


def _translator(folder: Path, device: str) -> Callable[[Sequence[str]], list[str]]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} holds no model that translates: {error}") from error
    model.eval().to(device_of(device))

    def translate(texts: Sequence[str]) -> list[str]:
        tokens = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=_LONGEST)
        with torch.inference_mode():
            made = model.generate(**tokens.to(model.device), do_sample=False, num_beams=1, max_new_tokens=_LONGEST)
        decoded: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
        return decoded

    return translate
