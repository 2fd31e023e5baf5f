"""The ``tokenizer.json`` that gives the ids of a SentencePiece BPE model.

The module ``sentencepiece_merges`` says why the ids are the same. What differs all the same:

* An added token can give a piece another name (``<|im_end|>`` for ``[UNUSED_TOKEN_145]``). The piece stands for that
  name only; the text ``[UNUSED_TOKEN_145]`` is text like any other.
* ``FastTokenizer.inexact``: sentencepiece joins characters before it looks them up, tokenizers afterwards. Some pieces
  have a character that is not a piece itself. They are cut out of the text before anything is joined. sentencepiece
  finds them too, unless a neighbour takes a part of one first. Two spaces do so, for example, before a rare letter that
  has a piece with one space. Text without such characters is not affected.
* With a dummy prefix, nothing can be cut out. Then such pieces are written in bytes, and user-defined pieces as any
  other text.
* U+001C to U+001F beside a token that takes the spaces around it: spaces to Python, and not to tokenizers.
* Ids that do not result from any text. If a run of bytes is not UTF-8, tokenizers decodes every byte of it as U+FFFD.
  It does so even where a part of the run is valid. It decodes the unknown piece and control pieces as their names
  (special ones can be skipped).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError, shown
from internvl_bridge.metadata.tokenizer.sentencepiece_checks import REMEDY, check_pieces, check_settings, inexpressible
from internvl_bridge.metadata.tokenizer.sentencepiece_merges import JoinedPieces, Merge, by_rank, joined_pieces
from internvl_bridge.metadata.tokenizer.sentencepiece_model import PieceKind, SentencePieceModel
from internvl_bridge.metadata.tokenizer.tokenizer_json import template_processing

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What pieces have for a space; the character itself and a space are the same to sentencepiece."""

_METASPACE = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "first", "split": False}


@dataclass(frozen=True, slots=True)
class FastTokenizer:
    """The contents of a ``tokenizer.json``, and the pieces that it does not make wherever sentencepiece does."""

    contents: dict[str, Any]
    inexact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _AddedToken:
    """A text that is cut out before any other is encoded; if ``normalized``, after spaces were replaced.

    With ``lstrip`` or ``rstrip`` the spaces on that side of it go with it.
    """

    number: int
    content: str
    special: bool
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False


def fast_tokenizer(
    model: SentencePieceModel,
    added_tokens: Mapping[str, Any],
    *,
    bos: str | None,
    eos: str | None,
    origin: Path,
    prefix_once: bool = False,
) -> FastTokenizer:
    """The ``tokenizer.json`` that gives the ids of ``model`` behind a slow tokenizer.

    Slow tokenizers cut the added tokens out of a text. They give every stretch between them to sentencepiece. So does
    the result.

    Args:
        model: what ``tokenizer.model`` says.
        added_tokens: ``added_tokens_decoder`` of ``tokenizer_config.json``: for an id, ``content`` and five flags. The
            flag ``normalized`` is ignored, for slow tokenizers look for the token in the text as it is.
        bos: the token in front of every text (``<s>``), None for none.
        eos: the token behind every text, None for none.
        origin: the file that ``added_tokens`` is from, for messages.
        prefix_once: the model's dummy prefix belongs to the start of a text only, and not to every stretch. A text that
            starts with a space or an added token has none. Llama's fast class does so where ``legacy`` is false.

    Raises CompanionFileError if ``added_tokens`` is malformed, or if the tokenizers library cannot do what the
    model does.
    """
    check_settings(model)
    added = _added_tokens(added_tokens, origin)
    names = _names(model, added, origin)
    joined = joined_pieces(model)
    check_pieces(model, names, joined)
    rare = _rare_pieces(model, joined)
    pieces = _pieces_to_cut_out(model, added, rare)
    cut_out = [] if model.adds_dummy_prefix else pieces  # tokenizers would put a space in front of the piece itself
    contents = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_token_entries([*added, *cut_out]),
        **_space_steps(model, prefix_once=prefix_once),
        "post_processor": _post_processor(names, bos, eos, origin),
        "decoder": _decoder(model),
        "model": _bpe(model, names, joined.merges),
    }
    return FastTokenizer(contents, tuple(piece.content for piece in pieces) if model.adds_dummy_prefix else rare)


def _added_tokens(entries: Mapping[str, Any], origin: Path) -> list[_AddedToken]:
    return [_added_token(number, entry, origin) for number, entry in entries.items()]


def _added_token(number: str, entry: Any, origin: Path) -> _AddedToken:
    match entry:
        case {"content": str(content)} if content and re.fullmatch("0|[1-9][0-9]{0,8}", number):
            pass
        case _:
            raise _malformed(origin, f"the entry {shown(number)} is not an id with a text: {shown(entry)}")
    flags = {name: entry.get(name, False) for name in ("special", "lstrip", "rstrip", "single_word")}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise _malformed(origin, f"the flags of {shown(content)} are not all true or false")
    if flags.pop("single_word"):  # Python and Rust disagree about what is a word
        raise inexpressible(origin, f"{shown(content)} is one as a whole word only (single_word)")
    return _AddedToken(int(number), content, **flags)


def _names(model: SentencePieceModel, added: Iterable[_AddedToken], origin: Path) -> list[str]:
    """The text of every id: first of the pieces, which added tokens can rename, then of the other tokens."""
    names = dict(enumerate(piece.text for piece in model.pieces)) | {token.number: token.content for token in added}
    if max(names) != len(names) - 1:  # the library would number them without a gap
        gap = next(number for number in range(len(names)) if number not in names)
        raise _malformed(origin, f"there is a token with the id {max(names)}, but none with {gap}")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise _malformed(origin, f"{shown(twice[0])} has two ids, counting the pieces")
    return [names[number] for number in range(len(names))]


def _rare_pieces(model: SentencePieceModel, joined: JoinedPieces) -> tuple[str, ...]:
    """The pieces that sentencepiece joins, and tokenizers does not.

    sentencepiece joins a user-defined piece to nothing, so it never makes a piece that contains one.
    """
    defined = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    return tuple(piece for piece in joined.with_unknown_character if not any(text in piece for text in defined))


def _pieces_to_cut_out(
    model: SentencePieceModel, added: Iterable[_AddedToken], rare: Collection[str]
) -> list[_AddedToken]:
    """The pieces to cut out of a text: the user-defined ones, then the ``rare`` ones, without those among ``added``.

    sentencepiece looks for user-defined pieces in what is left between the added tokens, the longest first. It has
    replaced the spaces before. So does tokenizers with added tokens that are "normalized".
    """
    known = {token.number for token in added}
    defined = _user_defined(model)
    if any(_SPACE in text and number in known for number, text in defined.items()):
        raise inexpressible(model.path, "an added token is also a user-defined piece with a space")
    wanted = set(rare)
    pieces = defined | {number: piece.text for number, piece in enumerate(model.pieces) if piece.text in wanted}
    return [
        _AddedToken(number, text, special=False, normalized=True)
        for number, text in pieces.items()
        if number not in known
    ]


def _user_defined(model: SentencePieceModel) -> dict[int, str]:
    """The user-defined pieces by their ids, without those with a space, which sentencepiece never finds."""
    return {
        number: piece.text
        for number, piece in enumerate(model.pieces)
        if piece.kind is PieceKind.USER_DEFINED and " " not in piece.text
    }


def _added_token_entries(tokens: Iterable[_AddedToken]) -> list[dict[str, Any]]:
    return [
        {
            "id": token.number,
            "content": token.content,
            "single_word": False,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": token.normalized,
            "special": token.special,
        }
        for token in sorted(tokens, key=lambda token: token.number)
    ]


def _space_steps(model: SentencePieceModel, *, prefix_once: bool) -> dict[str, Any]:
    """The entries that replace spaces: only the pre-tokenizer knows what is the start of the whole text."""
    at_start_only = prefix_once and model.adds_dummy_prefix
    return {
        "normalizer": None if at_start_only else _normalizer(model),
        "pre_tokenizer": _METASPACE if at_start_only else None,
    }


def _normalizer(model: SentencePieceModel) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if model.adds_dummy_prefix:
        return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replace]}
    return replace


def _post_processor(names: Sequence[str], bos: str | None, eos: str | None, origin: Path) -> dict[str, Any]:
    wanted = [token for token in (bos, eos) if token is not None]
    for token in wanted:
        if token not in names:
            raise _malformed(origin, f"{shown(token)} is not one of them, and not a piece")
    return template_processing(bos, eos, {token: names.index(token) for token in wanted})


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}]
    if model.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if model.adds_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _bpe(model: SentencePieceModel, names: Sequence[str], merges: Iterable[Merge]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(names[n] for n, piece in enumerate(model.pieces) if piece.kind is PieceKind.UNKNOWN),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,  # as sentencepiece, which gives one id to a run of unknown characters
        "byte_fallback": model.byte_fallback,
        "ignore_merges": False,
        "vocab": {name: number for number, name in enumerate(names[: len(model.pieces)])},
        "merges": [f"{merge.left} {merge.right}" for merge in by_rank(merges)],
    }


def _malformed(origin: Path, reason: str) -> CompanionFileError:
    return CompanionFileError(
        f"The added tokens of {origin} (added_tokens_decoder) cannot be used: {reason}.", f"Correct them. Or: {REMEDY}"
    )
