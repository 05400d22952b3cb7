"""Queries said otherwise by way of another language, with tiny models that learn a few words here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from encoders.errors import ModelError
from encoders.training.translation import there_and_back


def translator(folder: Path, tokenizer: Path, words: dict[str, str]) -> Path:
    """A model that says these words so. Each is a word of the tokenizer: pieces of one are put together otherwise."""
    torch.manual_seed(1)
    texts = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]", eos_token="[SEP]")
    sizes = {"d_model": 32, "d_ff": 32, "d_kv": 16, "num_layers": 1, "num_heads": 2, "vocab_size": len(texts)}
    special = {"pad_token_id": texts.pad_token_id, "eos_token_id": texts.eos_token_id}
    model = T5ForConditionalGeneration(
        T5Config(**sizes, **special, decoder_start_token_id=texts.pad_token_id, dropout_rate=0.0)
    )
    given = texts(list(words), return_tensors="pt", padding=True)
    labels = texts(list(words.values()), return_tensors="pt", padding=True).input_ids
    labels[labels == texts.pad_token_id] = -100
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model(input_ids=given.input_ids, attention_mask=given.attention_mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    texts.save_pretrained(folder)
    return folder


def test_what_comes_back_is_another_way_to_say_it(chinese_bert: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tokenizer = chinese_bert / "tokenizer.json"
    there = translator(tmp_path / "there", tokenizer, {"wireless": "seven", "cable": "casque", "usb": "usb"})
    back = translator(tmp_path / "back", tokenizer, {"seven": "audio", "casque": "typed", "usb": "usb"})
    told: list[tuple[int, int]] = []
    found = there_and_back(
        ["wireless", "cable", "usb"], there, back, device="cpu", report=lambda _, done, of: told.append((done, of))
    )
    assert found == {"wireless": ["audio"], "cable": ["typed"]}  # what comes back as it was is no other way
    assert told == [(0, 6), (3, 6)]


def test_a_folder_that_does_not_translate_is_named(chinese_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny-bert holds no model that translates"):
        there_and_back(["wireless"], chinese_bert, chinese_bert, device="cpu")
