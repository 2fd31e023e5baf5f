"""accelerate: the state of a run, whose directory has weights and no config.json."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from start import Start, same_weights

import internvl_bridge
from internvl_bridge.errors import ConfigError


@pytest.mark.parametrize("safe", [True, False])
def test_the_state_of_a_run_is_converted_with_the_config_of_its_base(safe: bool, start: Start, tmp_path: Path):
    accelerator = Accelerator(cpu=True)
    module = start.model()
    model, optimizer = accelerator.prepare(module, torch.optim.SGD(module.parameters(), lr=0.1))
    ids = torch.arange(5, 15)[None]
    accelerator.backward(model(input_ids=ids, labels=ids).loss)
    optimizer.step()
    accelerator.save_state(str(tmp_path / "state"), safe_serialization=safe)
    with pytest.raises(ConfigError, match="--config DIR"):
        internvl_bridge.to_custom(tmp_path / "state", tmp_path / "trained")
    internvl_bridge.to_custom(tmp_path / "state", tmp_path / "trained", config=start.hf, reference=start.custom)
    same_weights(accelerator.unwrap_model(model), tmp_path / "trained")
