"""Builds a small random Whisper in CTranslate2's format; its transcripts are random letters."""

import json
import string
import warnings
from pathlib import Path

SPECIALS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
TIMESTAMPS = 1501
WORD = 12
"""Tokens after which a transcript ends."""


def build(folder: Path) -> Path:
    """Write the model below `folder` and return its own folder, which `whisper_model` may name."""
    with warnings.catch_warnings():
        # the builders' own deprecations of each other's APIs
        warnings.simplefilter("ignore", category=DeprecationWarning)
        warnings.simplefilter("ignore", category=FutureWarning)
        from ctranslate2.converters import TransformersConverter

        source, made = folder / "source", folder / "whisper"
        _save_random(source)
        _save_tokenizer(source)
        files = ["tokenizer.json", "preprocessor_config.json"]
        TransformersConverter(str(source), copy_files=files).convert(str(made))
    return made


def _save_random(folder: Path) -> None:
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=256 + len(SPECIALS) + TIMESTAMPS,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        pad_token_id=256,
        bos_token_id=256,
        eos_token_id=256,
        decoder_start_token_id=257,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    decoder = model.model.decoder
    letter_ids = [number for number, letter in enumerate(_alphabet()) if letter in string.ascii_letters]
    with torch.no_grad():  # makes letters likely at first, and the end of text after WORD tokens
        decoder.embed_positions.weight[:WORD, 0] += 9
        decoder.embed_positions.weight[WORD:, 1] += 9
        decoder.embed_tokens.weight[letter_ids] += 0.3 * torch.randn(len(letter_ids), 64)
        decoder.embed_tokens.weight[letter_ids, 0] += 1
        decoder.embed_tokens.weight[256, 1] += 2
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {letter: number for number, letter in enumerate(_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    times = [AddedToken(f"<|{0.02 * number:.2f}|>", special=True) for number in range(TIMESTAMPS)]
    tokenizer.add_special_tokens(times)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[0],
        "unk_token": SPECIALS[0],
        "pad_token": SPECIALS[0],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def _alphabet() -> list[str]:
    """Return the character that stands for each byte, in the order of the vocabulary."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())
