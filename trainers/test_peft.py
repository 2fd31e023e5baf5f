"""PEFT: an adapter is called one, beside its base too, and what it is merged into is converted."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from start import Start, same_weights

import internvl_bridge
from internvl_bridge.errors import UnknownKeyError, UnsupportedModelError


def trained(start: Start) -> Any:
    """A model with an adapter after one step."""
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(start.model(), config)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    ids = torch.arange(5, 15)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    return model


def test_an_adapter_is_converted_both_ways_and_loads_again(start: Start, tmp_path: Path):
    model = trained(start)
    model.save_pretrained(tmp_path / "adapter")
    internvl_bridge.to_custom(tmp_path / "adapter", tmp_path / "custom-adapter")
    internvl_bridge.to_hf(tmp_path / "custom-adapter", tmp_path / "again", base=start.custom)
    assert internvl_bridge.verify_adapters(tmp_path / "custom-adapter", tmp_path / "adapter", base=start.hf).identical
    loaded = peft.PeftModel.from_pretrained(start.model(), tmp_path / "again").state_dict()
    before = model.state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(loaded[key], before[key]) for key in before)


def test_what_an_adapter_was_merged_into_is_converted(start: Start, tmp_path: Path):
    merged = trained(start).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    internvl_bridge.to_custom(
        tmp_path / "merged", tmp_path / "custom-trained", reference=start.custom, tokenizer=start.hf
    )
    same_weights(merged, tmp_path / "custom-trained")


def test_a_model_that_still_holds_its_adapter_is_refused_by_kind(start: Start, tmp_path: Path):
    torch.save(trained(start).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UnknownKeyError, match=r"part of a LoRA adapter|PEFT keeps it beside"):
        internvl_bridge.to_custom(tmp_path, tmp_path.with_name("x"), config=start.hf)


def test_an_adapter_beside_its_base_is_refused_unless_that_is_accepted(start: Start, tmp_path: Path):
    trained(start).save_pretrained(start.hf)
    with pytest.raises(UnsupportedModelError, match="holds an adapter"):
        internvl_bridge.to_custom(start.hf, tmp_path / "x")
    internvl_bridge.to_custom(start.hf, tmp_path / "base", accept={"adapter"})
    assert internvl_bridge.verify(start.custom, tmp_path / "base").identical
