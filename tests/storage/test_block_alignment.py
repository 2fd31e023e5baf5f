"""Which parts of a file could be shared with their source, and where data starts so that most of it can."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from internvl_bridge.storage import block_alignment as module
from internvl_bridge.storage.block_alignment import BLOCK, FileSegment, congruent_start, file_segments
from internvl_bridge.storage.byte_range import ByteRange

LONG = 1 << 16
FILES = [Path("a"), Path("b")]
LENGTHS = st.integers(0, 3 * LONG) | st.sampled_from([LONG - 1, LONG, LONG + BLOCK - 1, LONG + BLOCK, LONG + 2 * BLOCK])
PIECES = st.lists(
    st.builds(
        ByteRange,
        st.sampled_from(FILES),
        st.integers(0, 5 * BLOCK) | st.sampled_from([0, 8, BLOCK, BLOCK + 8]),
        LENGTHS,
        is_stored=st.just(value=True),
    ),
    max_size=6,
)
HEADERS = st.integers(0, 3 * BLOCK) | st.sampled_from([8, BLOCK, BLOCK + 8])
FROM_HERE = Path("source")


def long(offset: int, length: int = LONG) -> ByteRange:
    return ByteRange(FROM_HERE, offset, length)


def shareable(start: int, ranges: list[ByteRange]) -> int:
    return sum(part.length for part in file_segments(bytes(start), ranges) if part.shareable)


# Stretches


@given(HEADERS, PIECES)
def test_stretches_are_the_parts_of_the_file_one_after_the_other(header, ranges):
    parts = list(file_segments(bytes(header), ranges))
    assert parts[0] == FileSegment(0, bytes(header), shareable=False)
    position = header
    places: list[tuple[Path, int, int]] = []
    for part in parts[1:]:
        assert isinstance(part.part, ByteRange)
        assert part.offset == position
        assert part.length == part.part.length
        places.append((part.part.path, part.part.offset - part.offset, part.length))
        position += part.length
    assert position == header + sum(byte_range.length for byte_range in ranges)
    at, left = header, iter(places)
    for byte_range in ranges:  # each is cut into parts of the same file, none of them moved
        rest = byte_range.length
        while rest > 0:
            path, shift, length = next(left)
            assert (path, shift) == (byte_range.path, byte_range.offset - at)
            rest -= length
        assert rest == 0
        at += byte_range.length
        if not byte_range.length:
            assert next(left) == (byte_range.path, byte_range.offset - at, 0)
    assert list(left) == []


@given(HEADERS, PIECES)
def test_what_is_shareable_is_whole_blocks_on_both_sides_and_long(header, ranges):
    for part in file_segments(bytes(header), ranges):
        if part.shareable:
            assert isinstance(part.part, ByteRange)
            assert part.offset % BLOCK == part.part.offset % BLOCK == part.length % BLOCK == 0
            assert part.length >= LONG


@given(HEADERS, PIECES)
def test_all_that_is_whole_blocks_on_both_sides_and_long_is_shareable(header, ranges):
    at, blocks = header, 0
    for byte_range in ranges:
        if byte_range.offset % BLOCK == at % BLOCK:
            first, last = -(-at // BLOCK), (at + byte_range.length) // BLOCK
            blocks += (last - first) * BLOCK if (last - first) * BLOCK >= LONG else 0
        at += byte_range.length
    assert shareable(header, ranges) == blocks


@pytest.mark.parametrize(
    ("header", "byte_range", "parts"),
    [
        (BLOCK, long(0), [(BLOCK, 0, LONG, True)]),
        (0, long(BLOCK), [(0, BLOCK, LONG, True)]),
        (BLOCK, long(0, LONG - 1), [(BLOCK, 0, LONG - 1, False)]),
        (BLOCK, long(8), [(BLOCK, 8, LONG, False)]),
        (8, long(0), [(8, 0, LONG, False)]),
        (BLOCK, long(0, LONG + 1), [(BLOCK, 0, LONG, True), (BLOCK + LONG, LONG, 1, False)]),
        (
            8,
            long(BLOCK + 8, LONG + BLOCK),
            [
                (8, BLOCK + 8, BLOCK - 8, False),
                (BLOCK, 2 * BLOCK, LONG, True),
                (BLOCK + LONG, 2 * BLOCK + LONG, 8, False),
            ],
        ),
        (8, long(8, LONG + BLOCK - 9), [(8, 8, LONG + BLOCK - 9, False)]),  # one byte less than the blocks needed
        (8, long(8, BLOCK - 9), [(8, 8, BLOCK - 9, False)]),  # ends within its first block
    ],
)
def test_where_a_piece_is_cut(header, byte_range, parts):
    found = [(part.offset, part.part, part.shareable) for part in file_segments(bytes(header), [byte_range])][1:]
    assert found == [(offset, long(start, length), share) for offset, start, length, share in parts]


# Where data starts


@given(st.integers(0, 2 * BLOCK).map(lambda n: 8 * n), PIECES)
def test_data_starts_less_than_a_block_later_at_a_multiple_of_eight(least, ranges):
    start = congruent_start(least, ranges)
    assert least <= start < least + BLOCK
    assert start % 8 == 0


@given(
    st.integers(0, 2 * BLOCK).map(lambda n: 8 * n),
    st.lists(
        st.builds(
            ByteRange,
            st.sampled_from(FILES),
            st.sampled_from([0, 8, 16, BLOCK - 8, BLOCK, 5 * BLOCK + 8])
            | st.integers(0, 2 * BLOCK).map(lambda n: 8 * n),
            st.sampled_from([0, 8, 800, LONG - 8]) | st.integers(3 * LONG // 8, 6 * LONG // 8).map(lambda n: 8 * n),
        ),
        max_size=5,
    ),
)
def test_no_other_start_makes_much_more_of_the_data_shareable(least, ranges):
    """Pieces at multiples of 8 that are short or clearly long: up to the blocks that are cut at both ends of each."""
    ours = shareable(congruent_start(least, ranges), ranges)
    residues = {(byte_range.offset - sum(p.length for p in ranges[:n])) % BLOCK for n, byte_range in enumerate(ranges)}
    for residue in residues:
        other = shareable(least + (residue - least) % BLOCK, ranges)
        assert ours >= other - 2 * BLOCK * len(ranges)


@given(st.integers(0, 2 * BLOCK).map(lambda n: 8 * n), st.integers(0, 9 * BLOCK).map(lambda n: 8 * n), st.data())
def test_data_that_is_one_long_piece_is_shared_but_for_its_ends(least, offset, data):
    byte_range = long(offset, data.draw(st.integers(LONG + 2 * BLOCK, 3 * LONG)))
    start = congruent_start(least, [byte_range])
    assert shareable(start, [byte_range]) > byte_range.length - 2 * BLOCK


@given(st.integers(0, BLOCK).map(lambda n: 8 * n), st.permutations(range(4)), st.data())
def test_there_and_back_the_data_starts_where_it_did(least, order, data):
    """The same tensors in another order, and in the first order again."""
    lengths = data.draw(st.lists(st.integers(LONG // 8, LONG).map(lambda n: 8 * n), min_size=4, max_size=4))

    def places(start: int, order: list[int]) -> dict[int, ByteRange]:
        found = {}
        for number in order:
            found[number] = long(start, lengths[number])
            start += lengths[number]
        return found

    there = places(least, [0, 1, 2, 3])
    target = [there[number] for number in order]
    moved: dict[int, int] = {}
    position = 0
    for byte_range in target:
        residue = (byte_range.offset - position) % BLOCK
        moved[residue] = moved.get(residue, 0) + byte_range.length
        position += byte_range.length
    heaviest = sorted(moved.values())[-2:]
    assume(len(heaviest) == 1 or heaviest[0] != heaviest[1])  # of two equal ones, either may be chosen
    back = places(congruent_start(64, target), list(order))
    assert congruent_start(least, [back[number] for number in range(4)]) == least


@pytest.mark.parametrize(
    ("least", "ranges", "start"),
    [
        (96, [], 96),
        (96, [long(BLOCK, LONG - 1)], 96),  # nothing that is worth it
        (96, [long(96)], 96),
        (96, [long(BLOCK + 96)], 96),
        (96, [long(104)], 104),
        (96, [long(88)], BLOCK + 88),
        (96, [long(0)], BLOCK),
        (BLOCK, [long(0)], BLOCK),
        (BLOCK + 8, [long(0)], 2 * BLOCK),
        (96, [long(0, 8), long(1000)], 992),  # behind 8 bytes that are not worth it
        (96, [long(BLOCK, 100), long(1100)], 1000),
        (96, [long(200), long(200, 2 * LONG)], 200),  # the second lies 16 blocks later: congruent with the first
        (96, [long(200), long(304, 2 * LONG)], 304),  # the longer one wins
        (96, [long(200), long(304), long(200)], 200),  # the more of them win
        (96, [long(201)], 96),  # the library's readers want multiples of 8
    ],
)
def test_golden_starts(least, ranges, start):
    assert congruent_start(least, ranges) == start


def test_the_start_depends_on_the_pieces_alone(monkeypatch):
    """The same conversion writes the same bytes anywhere: no file is asked, not even whether it exists."""
    import os

    def asked(*_: object) -> None:
        pytest.fail("the file system was asked")

    ranges = [ByteRange(Path("/nowhere/at all"), 104, LONG)]
    calls: list[Callable[..., None]] = [asked]
    for name in ("stat", "statvfs", "open", "lstat"):
        monkeypatch.setattr(os, name, calls[0])
    assert congruent_start(96, ranges) == 104


def test_the_sizes_are_those_of_file_systems_that_share():
    """XFS and btrfs share blocks of 4 KiB; a window must hold whole ones for direct transfers."""
    from internvl_bridge.storage import local_files, reading

    assert BLOCK == 4096
    for size in (module._LONG, reading.WINDOW, local_files._CLONE_STEP, local_files._MOST_UNWRITTEN):
        assert size % BLOCK == 0


def test_bytes_that_are_computed_are_not_shared_and_move_nothing():
    computed = ByteRange(Path("computed"), 0, 1 << 20, is_stored=False)
    stored = ByteRange(Path("stored"), 24, 1 << 18)
    assert not any(segment.shareable for segment in file_segments(b"x" * BLOCK, [computed]))
    assert congruent_start(8, [computed]) == 8
    assert congruent_start(8, [computed, stored]) % BLOCK == 24
