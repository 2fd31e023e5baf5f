"""Say in the terms of the ``tokenizers`` library what a SentencePiece BPE model does: make ``tokenizer.json``.

Why the ids are the same. Both libraries start from characters and join, again and again, the best adjacent pair, the
leftmost among equals. They differ in what a rank belongs to: in sentencepiece to the piece that is made, however it is
cut in two; in tokenizers to the pair. But each piece is only ever made of one pair. For when sentencepiece makes the
piece z somewhere in a text, nothing has crossed the ends of z yet, and within them it has done what it would have done
with z as the whole text: the best pair of the text, if it lies in z, is the best pair of z. So only the last pair of z
encoded alone makes z, or nothing does. With exactly these pairs as merges, by descending score, the best pair of one
library is always the best pair of the other.

This argument needs different scores; :func:`_check_equal_scores` says which equal ones do no harm.

What differs all the same:

* A piece to which ``added_tokens_decoder`` gives another name (``<|im_end|>`` for ``[UNUSED_TOKEN_145]``) stands for
  that name only; the text ``[UNUSED_TOKEN_145]`` is text like any other.
* ``FastTokenizer.inexact``: sentencepiece joins characters before it looks them up, tokenizers afterwards. So a piece
  with a character that is no piece itself is cut out of the text before anything is joined. sentencepiece does so too,
  unless a neighbour takes a part of it first (two spaces, say, before a rare letter that has a piece with one). Text
  without such characters is not affected.
* A dummy prefix leaves no way to cut anything out: such pieces are then spelt in bytes, user-defined ones as any text.
* U+001C to U+001F beside a token that takes the spaces around it: spaces to Python, and not to tokenizers.
* Ids that no text is encoded to: tokenizers decodes every byte of a run that is not UTF-8 as U+FFFD, also where a part
  of the run is valid, and the unknown piece and control pieces as their names (special ones can be skipped).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from internvl_bridge.errors import ConfigError, shown
from internvl_bridge.metadata.tokenizer.sentencepiece_model import Algorithm, PieceKind, SentencePieceModel
from internvl_bridge.metadata.tokenizer.tokenizer_json import template_processing

Cuts = Mapping[str, int]
"""Where a piece is cut into the pair that it is made of."""

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What pieces have for a space; the character itself and a space are the same to sentencepiece."""

_JOINED = (PieceKind.NORMAL, PieceKind.UNUSED)
"""The kinds of the pieces that adjacent ones are joined to."""

_LIKE_A_BYTE = re.compile("<0x.{1,2}>", re.DOTALL)
"""What the decoder ``ByteFallback`` could take for a byte: it counts six bytes, not characters."""

_METASPACE = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "first", "split": False}

_REMEDY = "Give a directory with a fast tokenizer (tokenizer.json) by --tokenizer."


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

    Slow tokenizers cut the added tokens out of a text and give every stretch between them to sentencepiece; so does
    the result.

    Args:
        model: what ``tokenizer.model`` says.
        added_tokens: ``added_tokens_decoder`` of ``tokenizer_config.json``: for an id, ``content`` and five flags.
            What an entry says of ``normalized`` is not heeded: slow tokenizers look for it in the text as it is.
        bos: the token in front of every text (``<s>``), None for none.
        eos: the token behind every text, None for none.
        origin: the file that ``added_tokens`` is from, for messages.
        prefix_once: the model's dummy prefix belongs to the start of a text only, unless that is a space or an added
            token, and not to every stretch. So has it Llama's fast class where ``legacy`` is false.

    Raises ConfigError if ``added_tokens`` is malformed, or if the tokenizers library cannot do what the model does.
    """
    _check_settings(model)
    prefix_once = prefix_once and model.adds_dummy_prefix
    added = _added_tokens(added_tokens, origin)
    names = _names(model, added, origin)
    scores = _scores(model)
    cuts = _last_cuts(scores)
    _check_pieces(model, names, cuts)
    alphabet = frozenset(text for text in scores if len(text) == 1)
    outside = [piece for piece in cuts if not alphabet.issuperset(piece)]
    for piece in outside:
        del cuts[piece]
    _check_equal_scores(model.path, cuts, scores)
    uncut = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    rare = [piece for piece in outside if not any(text in piece for text in uncut)]
    atoms = _atoms(model, added, rare)
    cut = [] if model.adds_dummy_prefix else atoms  # tokenizers would put a space in front of the piece itself
    tokens = sorted((*added, *cut), key=lambda token: token.number)
    contents = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token) for token in tokens],
        "normalizer": None if prefix_once else _normalizer(model),
        "pre_tokenizer": _METASPACE if prefix_once else None,
        "post_processor": _post_processor(names, bos, eos, origin),
        "decoder": _decoder(model),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next(names[n] for n, piece in enumerate(model.pieces) if piece.kind is PieceKind.UNKNOWN),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,  # as sentencepiece, which gives one id to a run of unknown characters
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": {name: number for number, name in enumerate(names[: len(model.pieces)])},
            "merges": [" ".join(_pair(piece, cuts)) for piece in sorted(cuts, key=scores.__getitem__, reverse=True)],
        },
    }
    return FastTokenizer(contents, tuple(atom.content for atom in atoms) if model.adds_dummy_prefix else tuple(rare))


def _check_settings(model: SentencePieceModel) -> None:
    """Raise ConfigError for what changes the text in ways that are not (or not known to be) the same in tokenizers."""
    unlike = {
        f"its algorithm is {model.algorithm.name}, not BPE": model.algorithm is not Algorithm.BPE,
        "it puts spaces behind words (treat_whitespace_as_suffix)": model.treats_whitespace_as_suffix,
        "it keeps spaces as they are (escape_whitespaces is false)": not model.escapes_whitespaces,
        "it drops spaces (remove_extra_whitespaces)": model.removes_extra_whitespaces,
        "it replaces characters (normalizer_spec.precompiled_charsmap)": model.changes_characters,
        "it replaces decoded characters (denormalizer_spec.precompiled_charsmap)": model.changes_output,
    }
    for reason, applies in unlike.items():
        if applies:
            raise _inexpressible(model.path, reason)


def _added_tokens(entries: Mapping[str, Any], origin: Path) -> list[_AddedToken]:
    tokens: list[_AddedToken] = []
    for number, entry in entries.items():
        match entry:
            case {"content": str(content)} if content and re.fullmatch("0|[1-9][0-9]{0,8}", number):
                pass
            case _:
                raise _malformed(origin, f"the entry {shown(number)} is no id with a text: {shown(entry)}")
        flags = {name: entry.get(name, False) for name in ("special", "lstrip", "rstrip", "single_word")}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise _malformed(origin, f"the flags of {shown(content)} are not all true or false")
        if flags.pop("single_word"):  # Python and Rust disagree about what is a word
            raise _inexpressible(origin, f"{shown(content)} is one as a whole word only (single_word)")
        tokens.append(_AddedToken(int(number), content, **flags))
    return tokens


def _names(model: SentencePieceModel, added: Iterable[_AddedToken], origin: Path) -> list[str]:
    """The text of every id: of the pieces, as far as added tokens give them no other, then of the other tokens."""
    names = dict(enumerate(piece.text for piece in model.pieces)) | {token.number: token.content for token in added}
    if max(names) != len(names) - 1:  # the library would number them without a gap
        gap = next(number for number in range(len(names)) if number not in names)
        raise _malformed(origin, f"there is a token with the id {max(names)}, but none with {gap}")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise _malformed(origin, f"{shown(twice[0])} has two ids, counting the pieces")
    return [names[number] for number in range(len(names))]


def _scores(model: SentencePieceModel) -> dict[str, float]:
    """The score of every piece that can be joined from others, or be a part of one.

    Not those with a space, which no normalized text has, nor the user-defined ones: they are there from the start, and
    sentencepiece joins them to nothing.
    """
    return {piece.text: piece.score for piece in model.pieces if piece.kind in _JOINED and " " not in piece.text}


def _last_cuts(scores: Mapping[str, float]) -> dict[str, int]:
    """Where sentencepiece joins each piece last, for the pieces that it makes from others."""
    cuts = ((text, _last_cut(text, scores)) for text in scores if len(text) > 1)
    return {text: cut for text, cut in cuts if cut is not None}


def _pair(piece: str, cuts: Cuts) -> tuple[str, str]:
    """The two parts that ``piece`` is made of."""
    return piece[: cuts[piece]], piece[cuts[piece] :]


def _last_cut(text: str, scores: Mapping[str, float]) -> int | None:
    """Where ``text``, of two characters at least, is joined in the last step; None if it stays in parts."""

    def score(left: int) -> float:
        return scores.get(parts[left] + parts[left + 1], -inf)

    parts = list(text)
    ranks = [score(left) for left in range(len(parts) - 1)]
    while len(parts) > 2:
        best = max(ranks)
        if best == -inf:
            return None
        at = ranks.index(best)  # the leftmost
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del ranks[at]
        for left in (at - 1, at):
            if 0 <= left < len(ranks):
                ranks[left] = score(left)
    return len(parts[0])


def _check_pieces(model: SentencePieceModel, names: Sequence[str], cuts: Cuts) -> None:
    """Raise ConfigError for a piece that tokenizers would treat otherwise than sentencepiece."""
    for piece, name in zip(model.pieces, names, strict=False):
        single = len(piece.text) == 1
        made = piece.kind in _JOINED and (single or piece.text in cuts)
        if made and piece.kind is PieceKind.UNUSED:
            raise _inexpressible(model.path, f"the unused piece {shown(piece.text)} can appear, and is cut up again")
        if name != piece.text and (made or piece.kind is PieceKind.BYTE or len(name) == 1):
            raise _inexpressible(model.path, f"its piece {shown(piece.text)} cannot be called {shown(name)}")
        if single and piece.kind in {PieceKind.CONTROL, PieceKind.UNKNOWN}:  # versions of sentencepiece differ
            raise _inexpressible(model.path, f"its {piece.kind.name.lower()} piece is one character, {piece.text!r}")
    bytes_ = {piece.text for piece in model.pieces if piece.kind is PieceKind.BYTE}
    for name in names if model.byte_fallback else ():
        if _LIKE_A_BYTE.fullmatch(name) and name not in bytes_:
            raise _inexpressible(model.path, f"{shown(name)} would be decoded as a byte")


def _check_equal_scores(path: Path, cuts: Cuts, scores: Mapping[str, float]) -> None:
    """Raise ConfigError if two pieces of one score could compete.

    In tokenizers one of them always goes first, in sentencepiece the one to the left. The outcome is the same unless
    they want the same part, one as its right half and the other as its left; or unless a piece with a score as good can
    be made of one of them, which would be made before the other and could take its parts away.
    """
    count = Counter(scores[piece] for piece in cuts)
    equals = [piece for piece in cuts if count[scores[piece]] > 1]
    if not equals:
        return
    hasty = {half for piece in cuts for half in _pair(piece, cuts) if scores[piece] >= scores[half]}
    by_left: dict[tuple[float, str], set[str]] = defaultdict(set)
    for piece in equals:
        by_left[scores[piece], _pair(piece, cuts)[0]].add(piece)
    for piece in equals:
        rivals = by_left[scores[piece], _pair(piece, cuts)[1]] - {piece}
        if rivals or (piece in hasty):
            raise _inexpressible(path, f"other pieces have the same score as {shown(piece)}, {scores[piece]}")


def _atoms(model: SentencePieceModel, added: Iterable[_AddedToken], rare: Collection[str]) -> list[_AddedToken]:
    """The pieces to cut out of a text: the ``rare`` ones, and the user-defined that are not among ``added``.

    sentencepiece looks for user-defined pieces after it has replaced the spaces, the longest first, in what is left
    between the added tokens; so do tokenizers with added tokens that are "normalized".
    """
    known = {token.number for token in added}
    defined = {
        number: piece.text
        for number, piece in enumerate(model.pieces)
        if piece.kind is PieceKind.USER_DEFINED and " " not in piece.text  # with a space: never found
    }
    if any(_SPACE in text and number in known for number, text in defined.items()):
        raise _inexpressible(model.path, "an added token is also a user-defined piece with a space")
    wanted = set(rare)
    defined |= {number: piece.text for number, piece in enumerate(model.pieces) if piece.text in wanted}
    return [
        _AddedToken(number, text, special=False, normalized=True)
        for number, text in defined.items()
        if number not in known
    ]


def _added_token(token: _AddedToken) -> dict[str, Any]:
    return {
        "id": token.number,
        "content": token.content,
        "single_word": False,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    }


def _normalizer(model: SentencePieceModel) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if model.adds_dummy_prefix:
        return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replace]}
    return replace


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}]
    if model.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if model.adds_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _post_processor(names: Sequence[str], bos: str | None, eos: str | None, origin: Path) -> dict[str, Any]:
    wanted = [token for token in (bos, eos) if token is not None]
    for token in wanted:
        if token not in names:
            raise _malformed(origin, f"{shown(token)} is none of them, and no piece")
    return template_processing(bos, eos, {token: names.index(token) for token in wanted})


def _inexpressible(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} cannot be turned into a fast tokenizer with the same ids: {reason}.", _REMEDY)


def _malformed(origin: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"The added tokens of {origin} (added_tokens_decoder) cannot be used: {reason}.", f"Correct them. Or: {_REMEDY}"
    )
