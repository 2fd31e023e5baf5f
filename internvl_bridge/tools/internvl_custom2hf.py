"""``internvl_custom2hf.py`` of the InternVL repository: custom weights into the HF format.

Run it as ``python -m internvl_bridge.tools.internvl_custom2hf --custom_path C --hf_path H --save_path S``. config.json
and the tokenizer come from H, the weights from C. The L2 distance between the result and H's weights is printed. No GPU
is needed. Exit codes are those of ``internvl-bridge``.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import typer

from internvl_bridge.cli.terminal import DIFFERS, exit_codes, progress_bar, say
from internvl_bridge.convert.api import to_hf
from internvl_bridge.convert.options import ExpertsOption
from internvl_bridge.tools.drop_in import (
    CustomPath,
    HfPath,
    SavePath,
    compute_l2_distance,
    report_lines,
    run,
    tokenizer_of,
)

if TYPE_CHECKING:
    import torch

__all__ = ["compute_l2_distance", "convert_keys_to_hf", "main"]


def convert_keys_to_hf(
    custom_state_dict: Mapping[str, "torch.Tensor"], config: Mapping[str, Any] | None = None
) -> "dict[str, torch.Tensor]":
    """An HF state dict, spelled as ``InternVLForConditionalGeneration.state_dict()`` is, from a custom one.

    It differs from upstream's function of this name. It converts InternLM2 (given ``config``, the contents of
    config.json). It fuses Qwen3-MoE's experts where the installed transformers has them fused. It refuses what it does
    not know.
    """
    from internvl_bridge.in_memory.state_dict import convert_state_dict  # imports torch  # noqa: PLC0415

    experts: ExpertsOption = "fused" if int(version("transformers").partition(".")[0]) >= 5 else "split"
    return convert_state_dict(custom_state_dict, "to-hf", config=config, layout="l2", experts=experts)


def main(custom_path: CustomPath, hf_path: HfPath, save_path: SavePath) -> None:
    """Convert custom weights into the HF format, with config and tokenizer of an existing HF model."""
    with exit_codes():
        with progress_bar(quiet=False) as progress:
            report = to_hf(
                custom_path, save_path, reference=hf_path, tokenizer=tokenizer_of(hf_path), progress=progress
            )
        say(report_lines(report, hf_path))
        if not report.ok:
            raise typer.Exit(DIFFERS)


if __name__ == "__main__":
    run(main)
