"""Say what is in the place of a checkpoint or of its files, and what to type instead."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import CheckpointError, first_few

POINTER_START = b"version https://git-lfs"


def lfs_pointer(path: Path, missing: str) -> CheckpointError:
    """The refusal of a pointer ``path`` in the place of what is ``missing``."""
    return CheckpointError(f"{path} is a Git LFS pointer, not {missing}.", "Fetch all files: git lfs pull.")


def other_directory(directory: Path) -> CheckpointError | None:
    """The refusal of ``directory`` if it is what a trainer or a download keeps; None if nothing shows what it is."""
    names: list[str] = []
    with suppress(OSError):
        names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    found = next(_found(directory, names), None)
    return None if found is None else CheckpointError(f"{directory} holds {found[0]}.", found[1])


def _found(directory: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """What is there, and what to type."""
    place = shlex.quote(str(directory))
    steps = [name for name in names if name.startswith("global_step")]
    if "zero_to_fp32.py" in names or steps:
        yield (
            f"a checkpoint of DeepSpeed ({first_few([*steps, 'zero_to_fp32.py'])}), whose weights lie in parts",
            (
                f"Put them together: cd {place} && python zero_to_fp32.py . weights --safe_serialization. Then copy "
                f"config.json and the tokenizer's files to {directory / 'weights'}, and give that."
            ),
        )
    if parts := [name for name in names if name.startswith("model_world_size_")]:
        yield (
            f"a checkpoint of verl ({first_few(parts)}), whose weights lie in parts",
            (
                f"Merge them: python -m verl.model_merger merge --backend fsdp --local_dir {place} --target_dir MERGED."
                f" Then give MERGED."
            ),
        )
    if inner := [name for name in names if name.startswith("pytorch_model_fsdp_") or name == "weights"]:
        yield (
            f"its weights one level down, in {first_few(inner)}",
            f"Copy config.json and the tokenizer's files to {directory / inner[0]}, and give that.",
        )
    if "pytorch_model.bin" in names and (directory / "pytorch_model.bin").is_dir():
        yield (
            "pytorch_model.bin, which is a directory, as newer versions of DeepSpeed make it",
            f"Copy config.json and the tokenizer's files to {directory / 'pytorch_model.bin'}, and give that.",
        )
    if saves := [name for name in names if name.startswith("checkpoint-") and (directory / name).is_dir()]:
        yield f"the checkpoints of a trainer ({first_few(saves)})", f"Give one of them: {directory / saves[-1]}"
    if "snapshots" in names and (directory / "snapshots").is_dir():
        revisions = sorted(path.name for path in (directory / "snapshots").iterdir()) or ["REVISION"]
        yield "a repository in the hub's cache", f"Give its snapshot: {directory / 'snapshots' / revisions[-1]}"
    if ranks := [name for name in names if name.startswith(("mp_rank_", "iter_"))]:
        yield (
            f"a checkpoint of Megatron ({first_few(ranks)})",
            "Export it with the tool of the trainer that wrote it, and give what that makes.",
        )
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        yield (
            f"{first_few(ggufs)}, which is llama.cpp's format",
            "Give the checkpoint that it was made from: GGUF is not converted back.",
        )
    if pickled := [name for name in names if name.endswith((".pt", ".pth"))]:
        target = shlex.quote(str(directory / "pytorch_model.bin"))
        yield (
            f"{first_few(pickled)}, but no file of weights by a name that is known",
            f"If it is a state dict, rename it: mv {shlex.quote(str(directory / pickled[0]))} {target}",
        )
