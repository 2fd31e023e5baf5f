"""Which versions of transformers load a checkpoint, against the table of docs/spellings.md."""

import pytest

from internvl_bridge.catalog.transformers_versions import loading_versions
from internvl_bridge.mapping.families import GPT_OSS, QWEN2, QWEN3_MOE, Experts
from internvl_bridge.mapping.spellings import L1, L1_BARE_HEAD, L2, L3, KeySpelling


@pytest.mark.parametrize(
    ("family", "keys", "suits_4", "versions"),
    [
        (QWEN2, KeySpelling(L1), True, ("4.52 and newer",)),
        (QWEN2, KeySpelling(L2), False, ("5.0 and newer",)),
        (QWEN2, KeySpelling(L3), True, ("5.4 to 5.5", "5.9 and newer")),
        (QWEN2, KeySpelling(L1_BARE_HEAD), True, ("5.6 and newer",)),
        (QWEN3_MOE, KeySpelling(L1), True, ("4.52 to 4.57", "5.4 and newer")),
        (QWEN3_MOE, KeySpelling(L1), False, ("5.4 and newer",)),
        (QWEN3_MOE, KeySpelling(L2, Experts.FUSED), True, ("5.0 and newer",)),
        (QWEN3_MOE, KeySpelling(L3, Experts.SPLIT), True, ("5.4 to 5.5", "5.9 and newer")),
        (GPT_OSS, KeySpelling(L1), True, ("4.55 and newer",)),
    ],
)
def test_the_versions_that_load(family, keys, suits_4, versions):
    assert loading_versions(family, keys, suits_4=suits_4) == versions
