"""The sidecar is written so that it can be read again."""

import json

import pytest
from support import DATA

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.sidecar import sidecar_contents

CUSTOM_TEXT = (DATA / "custom" / "qwen2-300m" / "config.json").read_text()


def test_what_could_not_be_read_again_is_not_written() -> None:
    texts = {"config.json": CUSTOM_TEXT, "tokenizer_config.json": json.dumps({"litter": '"' * (17 << 20)})}
    with pytest.raises(
        CompanionFileError, match=r"tokenizer_config\.json is the largest, are too large for the sidecar"
    ) as error:
        sidecar_contents(Format.CUSTOM, "Qwen2", texts, {})
    assert "Remove what is no part of the model from tokenizer_config.json" in error.value.remedy
