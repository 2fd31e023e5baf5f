"""The files that will be written hold what was planned, or nothing is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import copy_custom

from internvl_bridge.convert.layout_check import check_layout
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.errors import ProofError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.output_shards import OutputShard


@pytest.fixture
def conversion(tmp_path: Path) -> Conversion:
    source = copy_custom("qwen2-300m", tmp_path / "source")
    return prepare(source, tmp_path / "output", (Format.CUSTOM, Format.HF), Options(max_shard_size="60KB"))


def checked(conversion: Conversion, first: OutputShard) -> None:
    check_layout((first, *conversion.shards[1:]), conversion.targets)


def test_the_planned_layout_is_accepted(conversion: Conversion) -> None:
    checked(conversion, conversion.shards[0])


def test_bytes_that_lie_elsewhere_are_refused(conversion: Conversion) -> None:
    first = conversion.shards[0]
    moved = tuple(ByteRange(part.path, part.offset + 2, part.length) for part in first.ranges)

    with pytest.raises(ProofError, match=f"{first.name} would not hold the tensors that were planned"):
        checked(conversion, replace(first, ranges=moved))


def test_a_dtype_that_was_not_planned_is_refused(conversion: Conversion) -> None:
    first = conversion.shards[0]

    with pytest.raises(ProofError, match="would not hold"):
        checked(conversion, replace(first, header=first.header.replace(b'"BF16"', b'"F16" ')))


def test_a_tensor_that_is_left_out_is_refused(conversion: Conversion) -> None:
    with pytest.raises(ProofError, match="The output would not hold"):
        check_layout(conversion.shards[1:], conversion.targets)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header: (len(header) - 9).to_bytes(8, "little") + header[8:],
        lambda header: (200_000_000).to_bytes(8, "little") + header[8:],
        lambda header: header[:8] + b"[" + header[9:],
        lambda header: header.replace(b"multi_modal", b"multi_model"),
    ],
    ids=["a wrong length", "longer than readers take", "no object", "another key"],
)
def test_a_header_that_no_reader_would_take_is_refused(conversion: Conversion, spoil: Callable[[bytes], bytes]) -> None:
    number = next(n for n, shard in enumerate(conversion.shards) if b"multi_modal" in shard.header)
    shards = list(conversion.shards)
    shards[number] = replace(shards[number], header=spoil(shards[number].header))

    with pytest.raises(ProofError, match="would not hold the tensors that were planned"):
        check_layout(shards, conversion.targets)
