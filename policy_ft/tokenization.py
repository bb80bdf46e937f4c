"""Tokenizers for instructions: a small byte-level BPE trained on the instructions at hand."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, BOS = "<pad>", "<bos>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: any text can be encoded, <pad> is 0 and <bos> is 1.

    Args:
        texts: instructions; the same texts in any order give the same tokenizer.
        vocab_size: largest number of tokens, at least 258 (two special tokens and the 256 bytes).

    Raises:
        ValueError: vocab_size is below 258.
    """
    if vocab_size < 258:
        raise ValueError(
            f"tokenizer vocab_size: found {vocab_size}; expected at least 258 (256 bytes, <pad>, "
            f"<bos>). Raise it."
        )
    tokenizer = Tokenizer(models.BPE())
    # the added space lets a word be the same token at the start of a sentence and inside it
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return tokenizer


def tokenize(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text, <bos> first where the tokenizer has one."""
    bos = tokenizer.token_to_id(BOS)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return ids if bos is None else [bos, *ids]
