"""Sizes as people write and read them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.reporting.sizes import human_size, parse_size

BYTES_IN = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


@pytest.mark.parametrize("unit", BYTES_IN)
def test_every_unit_has_its_number_of_bytes(unit):
    assert parse_size(f"3{unit}") == 3 * BYTES_IN[unit]


@pytest.mark.parametrize("text", ["5GB", "5G", "5g", "5 GB", " 5gb ", "5.0Gb", "5000MB", "5000000000", "5000000000 b"])
def test_spaces_and_case_do_not_matter(text):
    assert parse_size(text) == 5 * 10**9


@pytest.mark.parametrize(
    ("text", "size"), [("1.5KiB", 1536), ("0.5KB", 500), ("2.01KB", 2010), ("8.19GB", 8_190_000_000)]
)
def test_fractions_of_a_unit_are_exact(text, size):
    assert parse_size(text) == size


@given(st.integers(1, 10**7), st.integers(0, 3), st.sampled_from(sorted(BYTES_IN)))
def test_the_result_is_the_exact_product_without_parts_of_a_byte(digits, decimals, unit):
    number = Fraction(digits, 10**decimals)
    whole, part = divmod(digits, 10**decimals)
    size = int(number * BYTES_IN[unit])
    text = f"{whole}.{part:0{decimals}d}{unit}" if decimals else f"{whole}{unit}"
    if size == 0:
        with pytest.raises(OptionError):
            parse_size(text)
    else:
        assert parse_size(text) == size


@given(st.integers(1, 2**63))
def test_a_plain_number_means_itself(size):
    assert parse_size(size) == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "GB",
        "five",
        "5XB",
        "5GBs",
        "5 G B",
        "5GB 3",
        "-5GB",
        "+5",
        "1e3",
        "1,5GB",
        "5.GB",
        ".5GB",
        "1_000",
        "nan",
        "inf",
        "0x10",
        "True",
        "None",
    ],
)
def test_what_is_not_a_size_is_refused_with_an_example_of_one(text):
    with pytest.raises(OptionError, match="is not a size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert "5GB" in str(caught.value)
    assert isinstance(caught.value, BridgeError)


@pytest.mark.parametrize("size", [0, -1, "0", "0GB", "0.0 MiB"])
def test_nothing_is_not_a_size(size):
    with pytest.raises(OptionError, match="is not a size"):
        parse_size(size)


@pytest.mark.parametrize("text", ["0.5", "0.9B", "0.0001KB"])
def test_less_than_one_byte_is_not_a_size(text):
    with pytest.raises(OptionError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("unit", ["", "KB", "TiB"])
def test_a_number_beyond_all_disks_is_exact_or_refused_but_crashes_nothing(digits, unit):
    try:
        size = parse_size("9" * digits + unit)
    except OptionError as error:
        assert "is not a size" in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert size == (10**digits - 1) * BYTES_IN[unit]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 10**9, "4.7 GiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1.0 TiB"),
        (3000 * 1024**4, "3000.0 TiB"),
    ],
)
def test_sizes_are_told_in_binary_units(size, words):
    assert human_size(size) == words
