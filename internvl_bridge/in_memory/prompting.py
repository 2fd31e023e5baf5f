"""One prompt with a made-up image, for looking whether a model computes. Imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_QUESTION = "Describe this image."


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a model, by argument; ``source`` says what made them."""

    values: Mapping[str, torch.Tensor]
    source: str

    @property
    def tokens(self) -> int:
        return self.values["input_ids"].shape[-1]

    def equals(self, other: "Inputs") -> bool:
        """Whether both have the same numbers."""
        names = self.values.keys() | other.values.keys()
        return all(
            name in self.values and name in other.values and torch.equal(self.values[name], other.values[name])
            for name in names
        )


def prompt_inputs(processor: Any, config: Any) -> Inputs:
    """An image of one tile and a question, as ``processor`` makes inputs of them for a model with ``config``.

    Raises whatever transformers raises.
    """
    content = [{"type": "image", "image": _picture(_side(config))}, {"type": "text", "text": _QUESTION}]
    made = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return Inputs({name: value for name, value in made.items() if isinstance(value, torch.Tensor)}, "by its processor")


def made_up_inputs(config: Any) -> Inputs:
    """An image of one tile and a few tokens, without a processor: the same in every run."""
    side = _side(config)
    generator = torch.Generator().manual_seed(0)
    words = [1, 2, 3]
    ids = [*words, *[config.image_token_id] * config.image_seq_length, *words]
    pixels = torch.randn(1, 3, side, side, generator=generator)
    values = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    return Inputs({**values, "pixel_values": pixels}, "made up, without a processor")


def _side(config: Any) -> int:
    size = config.vision_config.image_size
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _picture(side: int) -> Any:
    """An image in which no two rows, columns or channels are alike. Raises ModuleNotFoundError without Pillow."""
    from PIL import Image  # noqa: PLC0415 (a processor needs it, this package does not)

    rows, columns = torch.arange(side)[:, None], torch.arange(side)[None, :]
    channels = torch.stack([5 * columns + rows, 3 * rows + 2 * columns, rows * columns + 7], dim=-1) % 256
    return Image.frombytes("RGB", (side, side), bytes(channels.to(torch.uint8).flatten().tolist()))
