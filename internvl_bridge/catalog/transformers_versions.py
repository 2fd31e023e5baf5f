"""Which versions of transformers load an HF checkpoint as it is stored, with every tensor in its place.

Source: checkpoints in each spelling, loaded with 4.52.4, 4.57.6, 5.0.0, 5.4.0, 5.8.0 and 5.23.0 (docs/spellings.md).
"""

from collections.abc import Collection

from internvl_bridge.mapping.families import GPT_OSS, Experts, Family
from internvl_bridge.mapping.spellings import L1, L1_BARE_HEAD, L2, L3, KeySpelling

_VERSIONS = (("4.52", "4.57"), ("5.0", "5.3"), ("5.4", "5.5"), ("5.6", "5.8"), ("5.9", ""))
"""The first and the last of versions that read alike."""
_V4, _V5_0, _V5_4, _V5_6, _V5_9 = range(len(_VERSIONS))
_BY_LAYOUT = {
    L1.name: {_V4, _V5_0, _V5_4, _V5_6, _V5_9},
    L2.name: {_V4, _V5_0, _V5_4, _V5_6, _V5_9},
    L3.name: {_V5_4, _V5_9},
    L1_BARE_HEAD.name: {_V5_6, _V5_9},
}
_LOSES = {Experts.SPLIT: _V5_0, Experts.FUSED: _V4}
"""Those that replace experts by random numbers, by how these are stored."""


def loading_versions(family: Family, keys: KeySpelling, *, suits_4: bool) -> tuple[str, ...]:
    """The versions that load a checkpoint of ``family`` with such HF ``keys``, as ranges such as "5.4 to 5.5".

    ``suits_4``: its config.json says everything in the words of transformers 4, too.
    """
    lost = {_LOSES[keys.experts]} if family.split_experts else set()
    lost |= set() if suits_4 else {_V4}
    ranges = _ranges(_BY_LAYOUT[keys.layout.name] - lost)
    return tuple(text.replace("4.52", "4.55") if family is GPT_OSS else text for text in ranges)


def _ranges(numbers: Collection[int]) -> list[str]:
    """The versions with these ``numbers`` in words; those that follow one another are one range."""
    starts = [number for number in sorted(numbers) if number - 1 not in numbers]
    ends = [number for number in sorted(numbers) if number + 1 not in numbers]
    pairs = ((_VERSIONS[start][0], _VERSIONS[end][1]) for start, end in zip(starts, ends, strict=True))
    return [f"{first} to {last}" if last else f"{first} and newer" for first, last in pairs]
