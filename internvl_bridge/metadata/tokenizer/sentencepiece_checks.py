"""What of a SentencePiece model the tokenizers library cannot do with the same ids."""

import re
from collections.abc import Sequence
from pathlib import Path

from internvl_bridge.errors import CompanionFileError, shown
from internvl_bridge.metadata.tokenizer.sentencepiece_merges import JOINED_KINDS, JoinedPieces, competing_merge
from internvl_bridge.metadata.tokenizer.sentencepiece_model import Algorithm, Piece, PieceKind, SentencePieceModel

REMEDY = "Give a directory with a fast tokenizer (tokenizer.json) by --tokenizer."

_LIKE_A_BYTE = re.compile("<0x.{1,2}>", re.DOTALL)
"""What the decoder ``ByteFallback`` could take for a byte: it counts six bytes, not characters."""


def inexpressible(path: Path, reason: str) -> CompanionFileError:
    """The error for a file ``path`` that asks for what tokenizers cannot do."""
    return CompanionFileError(f"{path} cannot be turned into a fast tokenizer with the same ids: {reason}.", REMEDY)


def check_settings(model: SentencePieceModel) -> None:
    """Raise CompanionFileError for changes of the text that tokenizers makes in another way, or may make so."""
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
            raise inexpressible(model.path, reason)


def check_pieces(model: SentencePieceModel, names: Sequence[str], joined: JoinedPieces) -> None:
    """Raise CompanionFileError if tokenizers treats a piece otherwise, which it calls by its name in ``names``."""
    texts = {merge.piece for merge in joined.merges}.union(joined.with_unknown_character)
    for piece, name in zip(model.pieces, names, strict=False):
        made = piece.kind in JOINED_KINDS and (len(piece.text) == 1 or piece.text in texts)
        reason = _difference(piece, name, made=made)
        if reason is not None:
            raise inexpressible(model.path, reason)
    _check_decoded_bytes(model, names)
    _check_equal_scores(model, joined)


def _difference(piece: Piece, name: str, *, made: bool) -> str | None:
    """Why tokenizers treats ``piece`` otherwise; ``made``: text can turn into it."""
    if made and piece.kind is PieceKind.UNUSED:
        return f"the unused piece {shown(piece.text)} can appear, and is cut up again"
    if name != piece.text and (made or piece.kind is PieceKind.BYTE or len(name) == 1):
        return f"its piece {shown(piece.text)} cannot be called {shown(name)}"
    # versions of sentencepiece differ in what they do with such a character
    if len(piece.text) == 1 and piece.kind in {PieceKind.CONTROL, PieceKind.UNKNOWN}:
        return f"its {piece.kind.name.lower()} piece is one character, {piece.text!r}"
    return None


def _check_decoded_bytes(model: SentencePieceModel, names: Sequence[str]) -> None:
    bytes_ = {piece.text for piece in model.pieces if piece.kind is PieceKind.BYTE}
    for name in names if model.byte_fallback else ():
        if _LIKE_A_BYTE.fullmatch(name) and name not in bytes_:
            raise inexpressible(model.path, f"{shown(name)} would be decoded as a byte")


def _check_equal_scores(model: SentencePieceModel, joined: JoinedPieces) -> None:
    merge = competing_merge(joined.merges)
    if merge is not None:
        reason = f"other pieces have the same score as {shown(merge.piece)}, {merge.score}"
        raise inexpressible(model.path, reason)
