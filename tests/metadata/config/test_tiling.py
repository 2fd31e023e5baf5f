"""How images are cut: the two formats' fields say the same, and what is no tiling is not taken for one."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.config.tiling import ONE_TILE, Tiling, custom_fields, custom_tiling, hf_fields, hf_tiling

tilings = st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda pair: Tiling(pair[0], pair[0] + pair[1]))


@given(tilings)
def test_each_formats_fields_say_what_they_were_made_from(tiling: Tiling):
    assert custom_tiling(custom_fields(tiling)) == tiling
    assert hf_tiling(hf_fields(tiling)) == tiling


def test_upstreams_usual_tiling_in_both_formats():
    config = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "max_dynamic_patch": 12}
    assert custom_fields(custom_tiling(config)) == config
    assert hf_fields(custom_tiling(config)) == {"crop_to_patches": True, "min_patches": 1, "max_patches": 12}


def test_one_tile_is_no_tiling_in_either_format():
    assert hf_fields(ONE_TILE) == {"crop_to_patches": False, "min_patches": 1, "max_patches": 1}
    assert custom_fields(ONE_TILE)["dynamic_image_size"] is False
    assert custom_fields(ONE_TILE)["use_thumbnail"] is False


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ONE_TILE),
        ({"dynamic_image_size": False, "max_dynamic_patch": 12}, ONE_TILE),
        ({"dynamic_image_size": True}, Tiling(1, 6)),
        ({"dynamic_image_size": True, "max_dynamic_patch": 24}, Tiling(1, 24)),
        ({"dynamic_image_size": True, "min_dynamic_patch": 2}, Tiling(2, 6)),
    ],
)
def test_absent_fields_have_the_custom_classs_defaults(config: dict[str, Any], expected: Tiling):
    assert custom_tiling(config) == expected


@pytest.mark.parametrize(
    ("smallest", "largest"),
    [(0, 12), (-1, 12), (3, 2), (1, 2**31), ("1", "12"), (1.0, 12.0), ([1], [12]), ({}, {}), (True, 12), (1, True)],
)
def test_numbers_by_which_no_image_can_be_cut_are_refused(smallest: Any, largest: Any):
    with pytest.raises(CompanionFileError, match="by which no image can be cut") as error:
        hf_tiling({"min_patches": smallest, "max_patches": largest})
    assert "preprocessor_config.json" in error.value.remedy


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {}}, Tiling(1, 12)),
        ({"max_patches": 6}, Tiling(1, 6)),
        ({"min_patches": 3, "max_patches": None}, Tiling(3, 12)),
        ({"min_patches": None, "max_patches": 6}, Tiling(1, 6)),
    ],
)
def test_absent_fields_have_the_hf_classs_defaults(processor: dict[str, Any], expected: Tiling):
    assert hf_tiling(processor) == expected


def test_no_processor_tells_no_tiling():
    assert hf_tiling({}) is None


def test_crop_to_patches_says_nothing():
    assert hf_tiling({"crop_to_patches": False, "min_patches": 1, "max_patches": 12}) == Tiling(1, 12)
    assert hf_tiling({"crop_to_patches": True, "max_patches": 1}) == ONE_TILE


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"max_patches": 6}, Tiling(1, 6)),
        ({"min_patches": 4}, Tiling(4, 12)),
        ({"size": {"height": 56, "width": 56}}, Tiling(1, 12)),
        ({"min_patches": None, "max_patches": None}, Tiling(1, 12)),
        ({"min_patches": None, "max_patches": 24, "crop_to_patches": False}, Tiling(1, 24)),
        ({"min_patches": 3, "max_patches": 3}, Tiling(3, 3)),
        ({}, None),
    ],
)
def test_a_tiling_that_is_stated_in_part_has_the_class_defaults(stated: dict[str, Any], expected: Tiling | None):
    assert hf_tiling(stated) == expected


@pytest.mark.parametrize("odd", [0, -1, True, False, "12", 6.0, 2**31, [6], {}])
@pytest.mark.parametrize("name", ["min_patches", "max_patches"])
def test_a_tiling_that_is_nonsense_is_refused(name: str, odd: Any):
    shown = re.escape(f"{name} {odd!r}")
    with pytest.raises(CompanionFileError, match=rf"{shown}.*by which no image can be cut.*preprocessor_config\.json"):
        hf_tiling({name: odd})


@pytest.mark.parametrize("stated", [{"min_patches": 7, "max_patches": 6}, {"min_patches": 13}])
def test_a_tiling_with_more_tiles_at_least_than_at_most_is_refused(stated: dict[str, Any]):
    with pytest.raises(CompanionFileError, match=f"min_patches {stated['min_patches']} and max_patches"):
        hf_tiling(stated)
