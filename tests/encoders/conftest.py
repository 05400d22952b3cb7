"""Small models with random weights and tokenizers trained on the spot, saved as a hub would hold them."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, XLMRobertaConfig, XLMRobertaModel

TEXTS = [
    "wireless headphones",
    "a",
    "无线耳机 降噪",
    "蓝牙音箱",
    "Bluetooth-Lautsprecher für draußen, wasserdicht und mit langer Akkulaufzeit",
    "наушники беспроводные",
    "ワイヤレスイヤホン 防水",
    "casque audio sans fil à réduction de bruit",
    "usb c cable 2m",
    "[SEP] <pad> </s> typed by a shopper",
    "one two three four five six seven eight nine ten " * 4,
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Eleven texts in six languages, one of them longer than the small models' limit."""
    return [" ".join(text.split()) for text in TEXTS]


def _sentence_transformer(folder: Path, *, pooling: str, max_tokens: int) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))


def _pieces(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The words and the characters of the texts, as the tokenizer sees them.

    Not what a trainer of `tokenizers` finds: that is in another order in every process, and with it a model's weights.
    """
    words = {
        word
        for text in TEXTS
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    return sorted(words), sorted(set("".join(words)))


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words, characters = _pieces(tokenizer)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *characters, *(f"##{one}" for one in characters)]
    tokenizer.model = models.WordPiece(
        {token: id_ for id_, token in enumerate(dict.fromkeys(tokens))}, unk_token="[UNK]"
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _sentencepiece() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words, characters = _pieces(tokenizer)
    scores = dict.fromkeys(special, 0.0) | dict.fromkeys(characters, -10.0) | dict.fromkeys(words, -9.0)
    tokenizer.model = models.Unigram([*scores.items()], unk_id=3)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def xlm_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-R (positions begin after the padding's) with a SentencePiece-like tokenizer, pooled by the mean."""
    folder = tmp_path_factory.mktemp("models") / "tiny-xlm-roberta"
    tokenizer = _sentencepiece()
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=40,
        type_vocab_size=1,
        initializer_range=0.1,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    _sentence_transformer(folder, pooling="mean_tokens", max_tokens=32)
    return folder


@pytest.fixture(scope="session")
def chinese_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a WordPiece vocabulary of Chinese and other characters, another activation, pooled by [CLS]."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    tokenizer = _wordpiece()
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=40,
        hidden_act="gelu_new",
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    _sentence_transformer(folder, pooling="cls_token", max_tokens=32)
    return folder


@pytest.fixture(scope="session")
def distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An architecture that isn't packed, in a plain transformers folder without any sentence-transformers file."""
    folder = tmp_path_factory.mktemp("models") / "tiny-distilbert"
    tokenizer = _wordpiece()
    torch.manual_seed(3)
    config = DistilBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=32,
        initializer_range=0.1,
    )
    DistilBertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
