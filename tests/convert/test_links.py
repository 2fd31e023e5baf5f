"""What links in a source lead to is in no output without a word, and what is not a file is never opened."""

import shutil
from pathlib import Path

import pytest
from support import copy_custom, files_of

import internvl_bridge
from internvl_bridge.errors import CheckpointError

SECRET = "hf_TOPSECRET"  # noqa: S105
CARRIED = ["README.md", "LICENSE", "merges.txt", "helper.py", "notes.txt", "config.json", "tokenizer.json"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_custom("qwen2-300m", tmp_path / "source")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def link_away(source: Path, name: str, tmp_path: Path) -> Path:
    """Let ``name`` in ``source`` be a link to a file elsewhere, which has what was there, or a secret."""
    target = tmp_path / "elsewhere" / name
    target.parent.mkdir(exist_ok=True)
    if (source / name).exists():
        (source / name).rename(target)
    else:
        target.write_text(SECRET)
    (source / name).symlink_to(target)
    return target


@pytest.mark.parametrize("name", CARRIED)
def test_a_small_file_that_leads_out_is_refused_by_name(source: Path, output: Path, tmp_path: Path, name: str):
    target = link_away(source, name, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        internvl_bridge.to_hf(source, output)
    assert f"{source} holds links that lead out of it: {name} to {target}." in caught.value.reason
    assert "--accept links" in caught.value.remedy
    assert not output.exists()
    report = internvl_bridge.to_hf(source, output, accept={"links"})
    assert report.accepted == ("links",)


def test_a_link_of_a_reference_or_a_tokenizer_is_refused_too(source: Path, output: Path, tmp_path: Path):
    internvl_bridge.to_hf(source, tmp_path / "hf")
    reference, tokenizer = copy_custom("qwen2-300m", tmp_path / "reference"), tmp_path / "tokenizer"
    (reference / "modeling.py").symlink_to(link_away(source, "notes.txt", tmp_path))
    with pytest.raises(CheckpointError, match=f"{reference} holds links that lead out of it: modeling.py"):
        internvl_bridge.to_custom(tmp_path / "hf", output, reference=reference)
    shutil.copytree(tmp_path / "hf", tokenizer)
    link_away(tokenizer, "tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match=f"{tokenizer} holds links that lead out of it: tokenizer.json"):
        internvl_bridge.to_custom(tmp_path / "hf", output, tokenizer=tokenizer)


def test_weights_and_their_index_may_be_links_anywhere(tmp_path: Path, output: Path, source: Path):
    internvl_bridge.to_hf(source, tmp_path / "sharded", max_shard_size="100KB")
    expected = internvl_bridge.to_custom(tmp_path / "sharded", tmp_path / "expected")
    for path in [*(tmp_path / "sharded").glob("model*")]:
        link_away(tmp_path / "sharded", path.name, tmp_path)
    assert internvl_bridge.to_custom(tmp_path / "sharded", output).tensors == expected.tensors
    assert files_of(output) == files_of(tmp_path / "expected")


def test_a_hub_cache_is_all_links_and_is_fine(source: Path, output: Path, tmp_path: Path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (tmp_path / "link").symlink_to(snapshot)
    internvl_bridge.to_hf(tmp_path / "link", output)
    (snapshot / "README.md").symlink_to(link_away(source, "notes.txt", tmp_path))
    with pytest.raises(CheckpointError, match=r"lead out of it: README\.md"):
        internvl_bridge.to_hf(tmp_path / "link", tmp_path / "another")


def test_a_link_within_the_source_is_fine(source: Path, output: Path):
    (source / "texts").mkdir()
    (source / "texts" / "card").write_text("A card.")
    (source / "README.md").symlink_to("texts/card")
    internvl_bridge.to_hf(source, output)


def test_a_file_of_the_kernel_is_never_read(source: Path, output: Path):
    (source / "README.md").symlink_to("/proc/self/environ")
    refused = pytest.raises(CheckpointError, match=r"README\.md leads to /proc/\d+/environ, which is of the kernel")
    with refused:
        internvl_bridge.to_hf(source, output, accept={"links"})
    with refused:
        internvl_bridge.inspect(source)
    with refused:
        internvl_bridge.verify_checksums(source)
    assert not output.exists()


def test_a_link_to_nothing_and_one_to_what_is_not_a_file_lead_nowhere(source: Path, output: Path):
    (source / "README.md").symlink_to("/nowhere")
    (source / "helper.py").symlink_to("/dev/zero")
    (source / "notes.txt").symlink_to("/")
    report = internvl_bridge.to_hf(source, output)
    assert {"README.md", "helper.py", "notes.txt"} <= set(report.left_behind)
