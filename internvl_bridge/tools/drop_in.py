"""What the two drop-in scripts have in common: their flags, and what they print."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.metadata.files import has_tokenizer

if TYPE_CHECKING:
    import torch

CustomPath = Annotated[Path, typer.Option("--custom_path", help="Checkpoint in the custom format.")]
HfPath = Annotated[Path, typer.Option("--hf_path", help="Checkpoint in the HF format.")]
SavePath = Annotated[Path, typer.Option("--save_path", help="Directory to create.")]


def compute_l2_distance(
    model1: "torch.nn.Module | Mapping[str, torch.Tensor]",
    model2: "torch.nn.Module | Mapping[str, torch.Tensor]",
) -> float:
    """See :func:`internvl_bridge.compute_l2_distance`: a true Euclidean distance, nothing skipped."""
    from internvl_bridge.in_memory import state_dict  # imports torch  # noqa: PLC0415

    return state_dict.compute_l2_distance(model1, model2)


def tokenizer_of(reference: Path) -> Path | None:
    """Where the tokenizer comes from: the reference, as upstream's scripts have it; the input if that has none."""
    return reference if has_tokenizer(reference) else None


def run(command: object) -> None:
    """Run a function with Typer options as a program of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)  # type: ignore[type-var]
    app()


def report_lines(report: ConversionReport, original: Path) -> Iterator[str]:
    """What the upstream scripts print, in their order, and where this result differs on purpose."""
    found = report.reference
    if found is None:
        yield f"{original} holds no safetensors weights: no keys or distances to compare."
    else:
        yield f"Missing keys: {list(found.unexpected)}"
        yield f"Unexpected keys: {list(found.missing)}"
        for key, how in found.mismatched.items():
            yield f"Mismatched: {key}: {how}"
        yield f"L2 distance to {original}: {found.l2:.6f}"
        yield (
            "  (This is a Euclidean norm over all tensors. Upstream's script prints the sum of one norm per tensor, "
            "which is larger. It leaves out tensors that do not match.)"
        )
    yield f"Saved {report.tensors} tensors to {report.output}, verified bit for bit: {', '.join(report.files)}."
    yield (
        "  (config.json is the reference's; where the input's own config.json says otherwise the input wins, "
        "which upstream's script ignores; dtypes are the input's)"
    )
    yield from (f"Warning: {warning}" for warning in report.warnings)
    yield from (f"Note: {note}" for note in report.notes)
