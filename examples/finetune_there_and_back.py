"""Fine-tune a custom checkpoint with transformers, and bring the result home to the custom format.

    python examples/finetune_there_and_back.py ./InternVL3_5-8B ./work

WORK gets three checkpoints: ``hf`` (converted), ``trained`` (one step later) and ``custom`` (converted back). The step
is a real one on made-up data, and only the projector learns: ``train`` is the place for your own training. One sees the
loss, and that the tensors that changed are those that were trained. WORK/finetune.html shows by how much.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import InternVLForConditionalGeneration

import internvl_bridge


def train(source: Path, output: Path) -> None:
    """Load an HF checkpoint, make one step on an image of noise and a few tokens, and save the model."""
    model: Any = InternVLForConditionalGeneration.from_pretrained(source, dtype="auto")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("multi_modal_projector" in name)
    image = torch.randn(1, 3, *model.config.vision_config.image_size, dtype=model.dtype)
    tokens = torch.tensor([[model.config.image_token_id] * model.config.image_seq_length + [*range(10, 20)]])
    # A large step, so that one shows in bfloat16.
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.01)
    loss = model(input_ids=tokens, pixel_values=image, labels=tokens).loss
    loss.backward()
    optimizer.step()
    print(f"One step, with a loss of {loss.item():.3f}.")
    model.save_pretrained(output)


def main() -> None:
    """Convert, train, convert back, and say what has changed."""
    parser = argparse.ArgumentParser(description="Fine-tune a custom checkpoint with transformers, for one step.")
    parser.add_argument("custom", type=Path, help="directory of a checkpoint in the custom format")
    parser.add_argument("work", type=Path, help="directory for the three checkpoints that are made")
    arguments = parser.parse_args()
    custom, work = arguments.custom, arguments.work
    try:
        internvl_bridge.to_hf(custom, work / "hf")
        train(work / "hf", work / "trained")
        # The reference gives what the HF format cannot state: the template, the tiling, upstream's Python modules.
        report = internvl_bridge.to_custom(work / "trained", work / "custom", reference=custom)
        found = internvl_bridge.verify(custom, work / "custom", distributions=True)
        internvl_bridge.save_report(found, work / "finetune.html", left=str(custom), right="the fine-tune")
    except internvl_bridge.BridgeError as error:
        sys.exit(str(error))
    changed = [difference.key for difference in found.differences]
    print(*report.warnings, f"{len(changed)} of {report.tensors} tensors have changed: {', '.join(changed)}.", sep="\n")
    if not (found.complete and all(key.startswith("mlp1.") for key in changed)):
        sys.exit("Something else than the projector has changed.")


if __name__ == "__main__":
    main()
