"""Tokenizers for instructions: read from a file, or a small byte-level BPE trained on the spot."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from policy_ft.errors import UserError, describe, nearest

PAD, BOS = "<pad>", "<bos>"
TOKENIZER_FILE = "tokenizer.json"


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


def read_tokenizer(path: Path, where: str) -> str:
    """The text of a tokenizer.json, given itself or the directory that holds it.

    Args:
        path: file or directory.
        where: how messages call the setting, e.g. "policy.tokenizer".

    Raises:
        UserError: there is no such file, or it is no tokenizer.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, [name for name in beside if name != path.name])
        remedy = (
            f"Correct the path{f'; {hint}' if hint else '.'} For a SentencePiece tokenizer.model, "
            "save it once with transformers' AutoTokenizer.save_pretrained, which writes "
            "tokenizer.json."
        )
        expected = f"a {TOKENIZER_FILE} of the tokenizers library, or a directory with one"
        raise UserError(describe(where, f"no file {str(file)!r}", expected, remedy))
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        remedy = "Copy it again."
        raise UserError(describe(str(file), f"no text ({error})", "UTF-8", remedy)) from None
    parse_tokenizer(text, str(file))
    return text


def parse_tokenizer(tokenizer_json: str, where: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json's text; UserError when it is none."""
    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        found = f"text that is no tokenizer ({error})"
        expected = "a tokenizer of the tokenizers library"
        raise UserError(describe(where, found, expected, "Copy it again.")) from None


def special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Tokens that mark structure and are no part of any text, such as <bos> and <image>: ids."""
    added = tokenizer.get_added_tokens_decoder()
    return {token.content: index for index, token in added.items() if token.special}


def text_vocabulary_size(tokenizer: Tokenizer) -> int:
    """How many embeddings text and <bos> may ask for: special tokens behind the last word are out.

    PaliGemma's tokenizer, for one, ends in <image>, for which pi0 has no embedding.
    """
    marks = {index for name, index in special_tokens(tokenizer).items() if name != BOS}
    size = tokenizer.get_vocab_size()
    while size - 1 in marks:
        size -= 1
    return size


def tokenize(tokenizer: Tokenizer, pieces: Iterable[str], *, with_bos: bool) -> list[int]:
    """Token ids of texts that are tokenized one by one.

    Args:
        tokenizer: of the language model.
        pieces: the texts, in order.
        with_bos: whether <bos> comes first, where the tokenizer has one.
    """
    bos = tokenizer.token_to_id(BOS) if with_bos else None
    ids = [] if bos is None else [bos]
    for piece in pieces:
        ids += tokenizer.encode(piece, add_special_tokens=False).ids
    return ids
