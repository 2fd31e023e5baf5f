"""Say what is in the place of a checkpoint or of its files, and what to type instead."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import CheckpointError, first_few

POINTER_START = b"version https://git-lfs"


def lfs_pointer(path: Path, missing: str) -> CheckpointError:
    """The refusal of a pointer ``path`` in the place of what is ``missing``."""
    return CheckpointError(f"{path} is a Git LFS pointer, not {missing}.", "Fetch all files: git lfs pull.")


_STATES = ("optimizer", "scheduler", "rng_state", "scaler", "training_args")
"""How the names of a trainer's own state begin."""


def other_directory(directory: Path) -> CheckpointError | None:
    """The refusal of ``directory`` if it is what a trainer or a download keeps; None if nothing shows what it is."""
    entries: list[Path] = []
    with suppress(OSError):
        entries = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    found = next(_found(directory, entries), None)
    return None if found is None else CheckpointError(f"{directory} holds {found[0]}.", found[1])


def _found(directory: Path, entries: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What is there, and what to type."""
    place = shlex.quote(str(directory))
    folders = [path.name for path in entries if path.is_dir()]
    files = [path.name for path in entries if path.is_file()]
    steps = [name for name in folders if name.startswith("global_step")]
    if "zero_to_fp32.py" in files or steps:
        join = f"cd {place} && python zero_to_fp32.py . weights --safe_serialization"
        yield (
            f"a checkpoint of DeepSpeed ({first_few([*steps, 'zero_to_fp32.py'])}), whose weights lie in parts",
            f"Put them together: {join}. {_complete(directory / 'weights')}",
        )
    if parts := [name for name in files if name.startswith("model_world_size_")]:
        merge = f"python -m verl.model_merger merge --backend fsdp --local_dir {place} --target_dir MERGED"
        yield (
            f"a checkpoint of verl ({first_few(parts)}), whose weights lie in parts",
            f"Merge them: {merge}. Then give MERGED.",
        )
    if inner := [name for name in folders if name.startswith("pytorch_model_fsdp_") or name == "weights"]:
        yield f"its weights one level down, in {first_few(inner)}", _complete(directory / inner[0])
    if "pytorch_model.bin" in folders:
        yield (
            "pytorch_model.bin, which is a directory, as newer versions of DeepSpeed make it",
            _complete(directory / "pytorch_model.bin"),
        )
    if saves := [name for name in folders if name.startswith("checkpoint-")]:
        yield f"the checkpoints of a trainer ({first_few(saves)})", f"Give one of them: {directory / saves[-1]}"
    if "snapshots" in folders:
        revision = max((path.name for path in (directory / "snapshots").iterdir()), default="REVISION")
        yield "a repository in the hub's cache", f"Give its snapshot: {directory / 'snapshots' / revision}"
    if ranks := [name for name in folders if name.startswith(("mp_rank_", "iter_"))]:
        yield (
            f"a checkpoint of Megatron ({first_few(ranks)})",
            "Export it with the tool of the trainer that wrote it, and give what that makes.",
        )
    if ggufs := [name for name in files if name.endswith(".gguf")]:
        yield (
            f"{first_few(ggufs)}, which is llama.cpp's format",
            "Give the checkpoint that it was made from: GGUF is not converted back.",
        )
    if pickled := [name for name in files if name.endswith((".pt", ".pth")) and not name.startswith(_STATES)]:
        target = shlex.quote(str(directory / "pytorch_model.bin"))
        yield (
            f"{first_few(pickled)}, but no file of weights by a name that is known",
            f"If it is a state dict, rename it: mv {shlex.quote(str(directory / pickled[0]))} {target}",
        )


def _complete(weights: Path) -> str:
    return f"Copy config.json and the tokenizer's files to {weights}, and give that."
