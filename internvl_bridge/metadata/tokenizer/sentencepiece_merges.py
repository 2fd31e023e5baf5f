"""Which pairs a SentencePiece BPE model joins, in which order.

Why the tokenizers library gives the same ids if it joins these pairs. Both libraries start from characters. Both join
the best adjacent pair again and again, and the leftmost one among equals. They differ in what has a rank. In
sentencepiece the resulting piece has it, wherever that piece is cut in two. In tokenizers the pair has it.

But every piece results from one pair only. Assume that sentencepiece makes the piece z somewhere in a text. Until then
it has joined nothing across the ends of z. Between these ends it has done what it does where z is the whole text. For
the best pair of the text, if it lies in z, is also the best pair of z. So z results from the last pair of z encoded
alone, or it never results. The merges are exactly these pairs, by descending score. So the best pair of one library
is always the best pair of the other.

This argument needs different scores; :func:`competing_merge` finds the equal scores that do harm.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from internvl_bridge.metadata.tokenizer.sentencepiece_model import PieceKind, SentencePieceModel

JOINED_KINDS = (PieceKind.NORMAL, PieceKind.UNUSED)
"""The kinds of the pieces that sentencepiece makes by joining."""


@dataclass(frozen=True, slots=True)
class Merge:
    """The pair that sentencepiece joins to a piece, with the score of that piece."""

    left: str
    right: str
    score: float

    @property
    def piece(self) -> str:
        """The piece that results."""
        return self.left + self.right


@dataclass(frozen=True, slots=True)
class JoinedPieces:
    """The pieces that sentencepiece makes of others, both in the order of their ids.

    tokenizers looks characters up before it joins them. So it cannot make ``with_unknown_character``: the pieces with a
    character that is not a piece itself.
    """

    merges: tuple[Merge, ...]
    with_unknown_character: tuple[str, ...]


def joined_pieces(model: SentencePieceModel) -> JoinedPieces:
    """The pieces that sentencepiece makes of others with ``model``."""
    scores = _scores(model)
    merges = _last_merges(scores)
    characters = frozenset(text for text in scores if len(text) == 1)
    return JoinedPieces(
        merges=tuple(merge for merge in merges if characters.issuperset(merge.piece)),
        with_unknown_character=tuple(merge.piece for merge in merges if not characters.issuperset(merge.piece)),
    )


def by_rank(merges: Iterable[Merge]) -> list[Merge]:
    """The merges in the order of their ranks, the best one first."""
    return sorted(merges, key=lambda merge: merge.score, reverse=True)


def competing_merge(merges: Sequence[Merge]) -> Merge | None:
    """The first merge whose order among those of its score matters; None if there is not any.

    In tokenizers one of them always goes first, in sentencepiece the one to the left. The outcome can differ in two
    cases only. Either both need the same part, one as its right half and the other as its left. Or one of them is a
    half of a piece with a score as good. That piece is made before the other one, and can take its parts away.
    """
    count = Counter(merge.score for merge in merges)
    equals = [merge for merge in merges if count[merge.score] > 1]
    continued = _continued_at_once(merges)
    by_left: dict[tuple[float, str], set[str]] = defaultdict(set)
    for merge in equals:
        by_left[merge.score, merge.left].add(merge.piece)
    for merge in equals:
        others = by_left[merge.score, merge.right] - {merge.piece}
        if others or merge.piece in continued:
            return merge
    return None


def _continued_at_once(merges: Iterable[Merge]) -> set[str]:
    """The pieces that are a half of a piece with a score as good."""
    scores = {merge.piece: merge.score for merge in merges}
    return {half for merge in merges for half in (merge.left, merge.right) if merge.score >= scores.get(half, inf)}


def _scores(model: SentencePieceModel) -> dict[str, float]:
    """The score of every piece that can result from others, or be a part of one.

    Pieces with a space are left out: normalized texts do not have any. So are user-defined pieces: they exist from the
    start, and sentencepiece joins them to nothing.
    """
    return {piece.text: piece.score for piece in model.pieces if piece.kind in JOINED_KINDS and " " not in piece.text}


def _last_merges(scores: Mapping[str, float]) -> list[Merge]:
    """The merge that makes each piece, for the pieces that sentencepiece makes of others."""
    cuts = ((text, _last_cut(text, scores)) for text in scores if len(text) > 1)
    return [Merge(text[:cut], text[cut:], scores[text]) for text, cut in cuts if cut is not None]


def _last_cut(text: str, scores: Mapping[str, float]) -> int | None:
    """Where the last step joins ``text``, of two characters at least; None if it stays in parts."""

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
