"""A family of known shape is one table in one place: what this test adds is all that a new one needs."""

from pathlib import Path

import pytest
from support import copy_custom, edit_json

import internvl_bridge
from internvl_bridge.mapping import families, tables
from internvl_bridge.mapping.config_fields import COMMON, HEADS, rope_fields
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.layer_shapes import llama_layer
from internvl_bridge.mapping.rope_scaling import RopeReader

ROPE = RopeReader("rope_type")
GRANITE = Family(
    name="Granite",
    architecture="GraniteForCausalLM",
    hf_model_type="granite",
    repository="example/InternVL-Granite",
    language_table=tables.same_names(tables.ATTENTION, tables.MLP),
    layer=llama_layer,
    fields=(*COMMON, *rope_fields(ROPE), *HEADS),
    rope=ROPE,
)


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "internvl_bridge.json"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of a family that does not exist."""
    directory = copy_custom("llama-6b", tmp_path / "source")
    edit_json(
        directory / "config.json",
        lambda config: config["llm_config"].update(architectures=["GraniteForCausalLM"], model_type="granite"),
    )
    return directory


def test_a_new_family_converts_both_ways(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, GRANITE))

    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    again = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "alone")

    assert report.family == again.family == "Granite"
    assert files_in(tmp_path / "back") == files_in(source)
    assert internvl_bridge.inspect(tmp_path / "alone").architecture == "GraniteForCausalLM"
    assert internvl_bridge.verify(tmp_path / "alone", source).identical


def test_an_unknown_family_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    with pytest.raises(internvl_bridge.BridgeError, match="llm_config names GraniteForCausalLM"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_an_incomplete_family_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="missing 5 required"):
        Family(name="Half", architecture="HalfForCausalLM", hf_model_type="half")  # type: ignore[call-arg]
