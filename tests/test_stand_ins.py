"""A directory that holds no checkpoint is called what it is, with the command that leads to one."""

from pathlib import Path

import pytest

from internvl_bridge.stand_ins import other_directory


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (["global_step5/", "latest"], "a checkpoint of DeepSpeed (global_step5", "python zero_to_fp32.py . weights"),
        (["model_world_size_2_rank_0.pt"], "a checkpoint of verl", "verl.model_merger merge --backend fsdp"),
        (["pytorch_model_fsdp_0/"], "one level down, in pytorch_model_fsdp_0", "pytorch_model_fsdp_0, and give that"),
        (["weights/"], "one level down, in weights", "and give that"),
        (["pytorch_model.bin/"], "pytorch_model.bin, which is a directory", "pytorch_model.bin, and give that"),
        (["checkpoint-5/", "checkpoint-9/"], "the checkpoints of a trainer", "Give one of them: {}/checkpoint-9"),
        (["snapshots/abc/", "refs/"], "a repository in the hub's cache", "Give its snapshot: {}/snapshots/abc"),
        (["iter_0000005/"], "a checkpoint of Megatron", "Export it"),
        (["model.gguf"], "llama.cpp's format", "GGUF is not converted back"),
        (["model.pt"], "model.pt, but no file of weights", "mv {}/model.pt {}/pytorch_model.bin"),
    ],
)
def test_a_directory_is_called_what_it_is(names: list[str], what: str, remedy: str, tmp_path: Path):
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            (tmp_path / name).write_bytes(b"")
    refusal = other_directory(tmp_path)
    assert refusal is not None
    assert what in refusal.reason
    assert remedy.format(tmp_path, tmp_path) in refusal.remedy


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state_0.pth", "scheduler.pt", "weights", "iter_1", "snapshots"])
def test_what_lies_beside_weights_is_not_taken_for_them(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"")
    assert other_directory(tmp_path) is None


@pytest.mark.parametrize("place", ["empty", "missing"])
def test_of_others_nothing_is_said(place: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert other_directory(tmp_path / place) is None
