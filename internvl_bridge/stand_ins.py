"""Say what is in the place of a checkpoint or of its files, and what to type instead."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import CheckpointError, first_few

INNER = re.compile(r"pytorch_model_fsdp(_[0-9]+)?|weights|model|pytorch_model\.bin")
"""The directories that accelerate, XTuner, other trainers and DeepSpeed's zero_to_fp32.py make for weights."""
_REPOSITORY = re.compile("models--(.+?)--(.+)")
POINTER_START = b"version https://git-lfs"


def lfs_pointer(path: Path, missing: str) -> CheckpointError:
    """The refusal of a pointer ``path`` in the place of what is ``missing``."""
    return CheckpointError(f"{path} is a Git LFS pointer, not {missing}.", "Fetch all files: git lfs pull.")


_PICKLED = (".bin", ".pt", ".pth")
_OTHERS = (
    *(
        "optimizer",
        "scheduler",
        "rng_state",
        "scaler",
        "sampler",
        "training_args",
        "random_states",
        "custom_checkpoint",
    ),
    *("mp_rank_", "zero_pp_rank_", "bf16_zero_", "model_world_size_", "optim_world_size_", "extra_state_world_size_"),
    *("model_optim_rng", "adapter_model", "common", "latest", "optim", "ema", "value_head", "v_head", "reward"),
    *("dl_state_dict", "state", "loss_scaler", "grad_scaler", "trainer_state", "vit", "meta", "args"),
)
"""How the names begin of what trainers keep beside weights, and of parts of a save."""
_AVERAGE = re.compile(r"(^|[_.-])ema([_.-]|$)")
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+\.")
CONFIG = "config.json"
_DEEPSPEED, _VERL = re.compile("global_step[0-9]+"), re.compile("global_step_[0-9]+")


def pickled_files(directory: Path) -> list[str]:
    """The files of ``directory`` of any name that torch.save may have written as whole weights."""
    found = [path.name for path in directory.glob("*") if path.suffix in _PICKLED and path.is_file()]
    found = [name for name in found if not name.startswith((".", *_OTHERS)) and not _AVERAGE.search(name)]
    return [] if any(map(_SHARD.search, found)) else sorted(found)


def other_directory(directory: Path) -> CheckpointError | None:
    """The refusal of ``directory`` if it is what a trainer or a download keeps; None if nothing shows what it is."""
    entries: list[Path] = []
    with suppress(OSError):
        entries = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    found = next(_found(directory, entries), None)
    return None if found is None else CheckpointError(f"{directory} holds {found[0]}.", found[1])


def gone(path: Path) -> CheckpointError | None:
    """The refusal of ``path`` if it is a link to a file that is gone, else None. A cleaned hub cache has such links."""
    if not path.is_symlink() or path.exists():
        return None
    repository = next((name for above in path.parents if (name := _REPOSITORY.fullmatch(above.name))), None)
    again = f"hf download {repository[1]}/{repository[2]}" if repository else "copy or download the whole directory"
    return CheckpointError(
        f"{path} is a link to {path.readlink()}, and nothing is there. Part of a download or copy is gone.",
        f"Get it again: {again}.",
    )


def _found(directory: Path, entries: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What is there, and what to type."""
    place = shlex.quote(str(directory))
    folders = [path.name for path in entries if path.is_dir()]
    files = [path.name for path in entries if path.is_file()]
    steps = [name for name in folders if _DEEPSPEED.fullmatch(name)]
    if "zero_to_fp32.py" in files or steps:
        scripts = [name for name in files if name == "zero_to_fp32.py"]
        script = scripts[0] if scripts else "-m deepspeed.utils.zero_to_fp32"
        join = f"cd {place} && python {script} . weights --safe_serialization"
        then = "Then give this directory again" if CONFIG in files else f"Then add {_ADD_CONFIG}"
        yield (
            f"a checkpoint of DeepSpeed ({first_few([*steps, *scripts])}), whose weights lie in parts",
            f"Put them together: {join}. {then}: its weights/ is read.",
        )
    parts = [name for name in files if name.startswith("model_world_size_")]
    saves = [name for name in folders if _VERL.fullmatch(name)]
    if parts or saves:
        where = place if parts else shlex.quote(str(directory / saves[-1] / "actor"))
        merge = f"python -m verl.model_merger merge --backend fsdp --local_dir {where} --target_dir MERGED"
        yield (
            f"a checkpoint of verl ({first_few(parts or saves)}), whose weights lie in parts",
            f"Merge them: {merge}. Then give MERGED.",
        )
    inner = [name for name in folders if INNER.fullmatch(name) and any((directory / name).iterdir())]
    if inner and CONFIG not in files:
        yield f"its weights one level down, in {first_few(inner)}, but no config.json", f"Add {_ADD_CONFIG}."
    if saves := [name for name in folders if name.startswith("checkpoint-")]:
        last = max(saves, key=lambda name: (len(name), name))  # checkpoint-900 comes before checkpoint-1000
        yield (
            f"the checkpoints of a trainer ({first_few(saves)})",
            f"Give one of them: {shlex.quote(str(directory / last))}",
        )
    if {"base", "adapter"} <= {*folders} and (directory / "base" / CONFIG).is_file():
        base, adapter = (shlex.quote(str(directory / name)) for name in ("base", "adapter"))
        yield (
            "a base model and an adapter, as extract makes them",
            f"Give one of them, {base}, or merge both: internvl-bridge merge {base} OUTPUT --adapter {adapter}",
        )
    if "snapshots" in folders:
        revision = max((path.name for path in (directory / "snapshots").iterdir()), default="REVISION")
        yield (
            "a repository in the hub's cache",
            f"Give its snapshot: {shlex.quote(str(directory / 'snapshots' / revision))}",
        )
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
    if len(pickled := pickled_files(directory)) > 1:
        chosen = shlex.quote(str(directory / pickled[0]))
        target = shlex.quote(str(directory / "pytorch_model.bin"))
        yield (
            f"{first_few(pickled)}, and nothing shows which of them has the weights",
            f"Rename the one that has: mv {chosen} {target}",
        )


_ADD_CONFIG = "--config DIR (config=...), where DIR has the model's config.json and tokenizer"
