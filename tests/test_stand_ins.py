"""A directory that holds no checkpoint is called what it is, with the command that leads to one."""

from pathlib import Path

import pytest

from internvl_bridge.stand_ins import gone, other_directory


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (
            ["global_step5/", "latest"],
            "a checkpoint of DeepSpeed (global_step5",
            "python -m deepspeed.utils.zero_to_fp32 . weights",
        ),
        (["global_step5/", "config.json"], "DeepSpeed", "Then give this directory again: its weights/ is read"),
        (["model_world_size_2_rank_0.pt"], "a checkpoint of verl", "verl.model_merger merge --backend fsdp"),
        (["global_step_5/"], "a checkpoint of verl", "--local_dir {}/global_step_5/actor --target_dir MERGED"),
        (["pytorch_model_fsdp_0/.metadata"], "one level down, in pytorch_model_fsdp_0", "Add --config DIR"),
        (["pytorch_model.bin/x.bin"], "one level down, in pytorch_model.bin", "Add --config DIR"),
        (["checkpoint-50/", "checkpoint-1000/"], "checkpoints of a trainer", "Give one of them: {}/checkpoint-1000"),
        (["snapshots/abc/", "refs/"], "a repository in the hub's cache", "Give its snapshot: {}/snapshots/abc"),
        (["iter_0000005/"], "a checkpoint of Megatron", "Export it"),
        (["model.gguf"], "llama.cpp's format", "GGUF is not converted back"),
        (["a.pt", "b.pth"], "a.pt, b.pth, and nothing shows which", "mv {}/a.pt {}/pytorch_model.bin"),
    ],
)
def test_a_directory_is_called_what_it_is(names: list[str], what: str, remedy: str, tmp_path: Path):
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
    refusal = other_directory(tmp_path)
    assert refusal is not None
    assert what in refusal.reason
    assert remedy.format(tmp_path, tmp_path) in refusal.remedy


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state_0.pth", "scheduler.pt", "weights", "iter_1", "snapshots"])
def test_what_lies_beside_weights_is_not_taken_for_them(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"")
    assert other_directory(tmp_path) is None


@pytest.mark.parametrize(
    ("place", "again"), [("models--me--my--vlm/snapshots/1", "hf download me/my--vlm"), ("x", "copy")]
)
def test_a_link_to_what_is_gone_is_named_with_the_way_to_get_it_again(place: str, again: str, tmp_path: Path):
    link = tmp_path / place / "config.json"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/5")
    refusal = gone(link)
    assert refusal is not None
    assert "is a link to ../../blobs/5, and nothing is there" in refusal.reason
    assert again in refusal.remedy
    link.unlink()
    assert gone(link) is None


@pytest.mark.parametrize("place", ["empty", "missing"])
def test_of_others_nothing_is_said(place: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert other_directory(tmp_path / place) is None
