"""What trainings start from, and what their results are compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import internvl_bridge


@dataclass(frozen=True)
class Start:
    """What a training starts from: the checkpoint in both formats."""

    custom: Path
    hf: Path

    def model(self) -> Any:
        return transformers.AutoModelForImageTextToText.from_pretrained(self.hf, dtype=torch.float32)

    def tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.hf)


def same_weights(model: Any, directory: Path) -> None:
    """Check that ``directory``, in whatever format, holds what ``model`` has in memory."""
    mine = internvl_bridge.convert_state_dict(
        {key: tensor.detach() for key, tensor in model.state_dict().items()},
        "to-custom",
        config=model.config.to_dict(),
        tied="copy",
    )
    loaded = internvl_bridge.load_pretrained(directory, dtype=torch.float32)
    theirs = internvl_bridge.convert_state_dict(loaded.state_dict(), "to-custom", config=loaded.config.to_dict())
    assert internvl_bridge.compute_l2_distance(mine, theirs) == 0
