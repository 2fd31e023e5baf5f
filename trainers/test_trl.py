"""TRL's SFTTrainer: what one step saves, as a checkpoint of a run and as its result."""

from pathlib import Path

import pytest
from datasets import Dataset
from start import Start, same_weights
from trl import SFTConfig, SFTTrainer

import internvl_bridge
from internvl_bridge.errors import CheckpointError


def test_one_step_is_converted_and_its_run_is_answered_with_its_last_checkpoint(start: Start, tmp_path: Path):
    run, model = tmp_path / "run", start.model()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    config = SFTConfig(
        output_dir=str(run),
        max_steps=1,
        per_device_train_batch_size=1,
        learning_rate=0.1,
        save_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_length=16,
        router_aux_loss_coef=0.0,
    )
    data = Dataset.from_list([{"input_ids": [*range(5, 15)]}])
    SFTTrainer(model, args=config, train_dataset=data, processing_class=start.tokenizer()).train()
    assert any(not tensor.equal(before[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(CheckpointError, match=f"Give one of them: {run}/checkpoint-1"):
        internvl_bridge.to_custom(run, tmp_path / "trained")
    saved = run / "checkpoint-1"
    internvl_bridge.to_custom(saved, tmp_path / "trained", reference=start.custom, tokenizer=start.hf)
    assert internvl_bridge.verify(saved, tmp_path / "trained").identical
    same_weights(model, tmp_path / "trained")
