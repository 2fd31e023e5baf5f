"""``internvl_hf2custom.py`` of the InternVL repository: HF weights into the custom format.

Run it as ``python -m internvl_bridge.tools.internvl_hf2custom --custom_path C --hf_path H --save_path S``. config.json
and the tokenizer come from C, the weights from H. The L2 distance between the result and C's weights is printed. Exit
codes are those of ``internvl-bridge``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from internvl_bridge.cli.terminal import DIFFERS, exit_codes, progress_bar, say
from internvl_bridge.convert.api import to_custom
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

__all__ = ["compute_l2_distance", "convert_keys_back", "main"]


def convert_keys_back(
    hf_state_dict: Mapping[str, "torch.Tensor"], config: Mapping[str, Any] | None = None
) -> "dict[str, torch.Tensor]":
    """A custom state dict from an HF one in any key spelling.

    It differs from upstream's function of this name. It converts q_norm and k_norm too. It refuses what it does not
    know, and never drops an incomplete query-key-value group. ``config`` (the contents of a custom config.json) makes
    it produce InternLM2's names and check completeness.
    """
    from internvl_bridge.in_memory.state_dict import convert_state_dict  # imports torch  # noqa: PLC0415

    return convert_state_dict(hf_state_dict, "to-custom", config=config)


def main(custom_path: CustomPath, hf_path: HfPath, save_path: SavePath) -> None:
    """Convert HF weights into the custom format, with config and tokenizer of an existing custom model."""
    with exit_codes():
        with progress_bar(quiet=False) as progress:
            report = to_custom(
                hf_path, save_path, reference=custom_path, tokenizer=tokenizer_of(custom_path), progress=progress
            )
        say(report_lines(report, custom_path))
        if not report.ok:
            raise typer.Exit(DIFFERS)


if __name__ == "__main__":
    run(main)
