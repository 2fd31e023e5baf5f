"""A list of tensors is packed for a page, and comes back as it was."""

import json
from math import inf, nan
from typing import Any

from pages.reading import _unpacked

from internvl_bridge.pages.tensor_list import Column, Size, TensorList, TensorRow, key_numbers

COLUMNS = (
    Column("Made of", "text", is_shared=True),
    Column("Size", "size", is_shared=True),
    Column("File", "choice"),
    Column("Relative", "measure"),
    Column("Element", "number"),
)

NOTHING = Size(0, "0 B")


def unpacked(*rows: TensorRow) -> list[dict[str, Any]]:
    return _unpacked(json.loads(json.dumps(TensorList("tensors", COLUMNS, rows).packed(), allow_nan=False)))


def test_keys_share_their_texts_and_come_back():
    made_of = "a.layers.*.gate[*, 0:4] + b.layers.*.*.c"
    rows = [
        TensorRow(
            f"m.layers.{layer}.experts.{expert}.up",
            (made_of, Size(8, "8 B"), "one", 0.5, 3),
        )
        for layer in (0, 7)
        for expert in (1, 12)
    ]
    packed = TensorList("tensors", COLUMNS, tuple(rows)).packed()
    assert packed["groups"] == [["m.layers.*.experts.*.up", "a.layers.*.gate[*, 0:4] + b.layers.*.*.c", [8, "8 B"]]]
    assert unpacked(*rows)[3] == {
        "Tensor": "m.layers.7.experts.12.up",
        "Made of": "a.layers.7.gate[12, 0:4] + b.layers.7.12.c",
        "Size": [8, "8 B"],
        "File": "one",
        "Relative": 0.5,
        "Element": 3,
    }


def test_keys_of_strangers_come_back():
    keys = ["a.*.b", "layers.*.1", "layers.3.*", "layers.x", "", "layers.1", 'quote"</script>', "layers.4.experts.5"]
    found = unpacked(*(TensorRow(key, ("", NOTHING, "f", 0.0, 0)) for key in keys))
    assert sorted(row["Tensor"] for row in found) == sorted(keys)
    [row] = unpacked(TensorRow("a\x1b\u202e", ("\x00", NOTHING, "\x07", 0.0, 0)))
    assert (row["Tensor"], row["Made of"], row["File"]) == ("a\\x1b\\u202e", "\\x00", "\\x07")


def test_what_json_has_no_number_for():
    found = unpacked(*(TensorRow("a", ("", NOTHING, "f", value, "")) for value in (nan, inf, 1e-300)))
    assert [row["Relative"] for row in found] == ["nan", "inf", 1e-300]
    assert {row["Element"] for row in found} == {""}


def test_only_numbers_of_layers_and_experts_count():
    assert key_numbers("mlp1.0.layers.4.x.3") == ["4"]
