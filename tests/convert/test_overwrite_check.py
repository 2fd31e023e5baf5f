"""What may be replaced by --overwrite, what never is, and whose OUTPUT.partial is left alone."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support import copy_custom, edit_json
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import ConfigError, OutputError
from internvl_bridge.storage.publishing import partial_path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_custom("qwen3-300m", tmp_path_factory.mktemp("overwriting") / "source")


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "source"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def old(source: Path, output: Path) -> Path:
    """An output that an earlier conversion has made, in another layout."""
    internvl_bridge.to_hf(source, output, layout="l2")
    return output


def snapshot(directory: Path) -> Mapping[str, object]:
    """Everything in ``directory``: bytes of files, targets of links."""
    return {
        str(path.relative_to(directory)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in directory.rglob("*")
    }


def refused(source: Path, output: Path, *, overwrite: bool = True, restart: bool = False) -> str:
    """The reason why nothing is converted; nothing at all is changed, made or removed."""
    top = source.parent
    before = snapshot(top)
    with pytest.raises(OutputError) as caught:
        internvl_bridge.to_hf(source, output, overwrite=overwrite, restart=restart)
    assert snapshot(top) == before
    flags = [*(["--overwrite"] if overwrite else []), *(["--restart"] if restart else [])]
    result = CliRunner().invoke(app, ["to-hf", str(source), str(output), *flags])
    assert result.exit_code == 2
    assert result.stderr == f"Error: {caught.value}\n"
    assert snapshot(top) == before
    return str(caught.value)


# Replacing


def test_an_output_is_replaced_by_what_an_absent_one_would_have_become(source, old, tmp_path):
    internvl_bridge.to_hf(source, tmp_path / "new")
    internvl_bridge.to_hf(source, old, overwrite=True)
    assert snapshot(old) == snapshot(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "output", "source"]


def test_the_old_files_are_gone_with_the_old_output(source, old):
    (old / "model-00007-of-00009.safetensors").write_text("old")
    (old / "config.json").unlink()
    (old / "config.json").symlink_to("internvl_bridge.json")
    internvl_bridge.to_hf(source, old, overwrite=True)
    assert "model-00007-of-00009.safetensors" not in snapshot(old)
    assert not (old / "config.json").is_symlink()
    assert internvl_bridge.verify(source, old).identical


def test_a_checkpoint_of_another_program_is_overwritten(source, output):
    output.mkdir()
    names = ["config.json", "model.safetensors", "pytorch_model-00001-of-00002.bin", "README.md", "modeling_x.py"]
    for name in [*names, "merges.txt", "tokenizer.model", "chat_template.jinja", ".gitattributes", "LICENSE"]:
        (output / name).write_text("old")
    internvl_bridge.to_hf(source, output, overwrite=True)
    assert internvl_bridge.verify(source, output).identical


def test_the_other_commands_overwrite_too(source, tmp_path):
    hf, output = tmp_path / "hf", tmp_path / "output"
    internvl_bridge.to_hf(source, hf)
    internvl_bridge.to_custom(hf, output)
    internvl_bridge.repair(hf, output, overwrite=True)
    assert internvl_bridge.inspect(output).format == "hf"
    internvl_bridge.to_custom(hf, output, overwrite=True)
    assert internvl_bridge.inspect(output).format == "custom"


def test_overwrite_where_there_is_nothing_and_where_there_is_an_empty_directory(source, output):
    internvl_bridge.to_hf(source, output, overwrite=True)
    first = snapshot(output)
    shutil.rmtree(output)
    output.mkdir()
    internvl_bridge.to_hf(source, output, overwrite=True)
    assert snapshot(output) == first


@pytest.mark.parametrize("mark", ["config.json", "internvl_bridge.json"])
def test_a_checkpoint_is_known_by_one_of_two_files(source, output, mark):
    output.mkdir()
    (output / mark).write_text("{}")
    internvl_bridge.to_hf(source, output, overwrite=True)
    assert internvl_bridge.verify(source, output).identical


def test_a_conversion_that_fails_leaves_the_old_output(source, old, tmp_path, monkeypatch):
    from internvl_bridge.convert import run as conversion

    def fail(_stamps: object) -> None:
        raise OSError(28, "No space left on device")

    before = snapshot(old)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "check_unchanged", fail)
        with pytest.raises(OSError, match="No space left"):
            internvl_bridge.to_hf(source, old, overwrite=True)
    assert snapshot(old) == before
    internvl_bridge.to_hf(source, old, overwrite=True)
    assert snapshot(old) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "source"]


def test_a_source_that_is_refused_leaves_the_old_output(source, old):
    before = snapshot(old)
    edit_json(source / "config.json", lambda config: config.pop("llm_config"))
    with pytest.raises(ConfigError):
        internvl_bridge.to_hf(source, old, overwrite=True)
    assert snapshot(old) == before


def test_a_plan_of_an_overwriting_overwrites_nothing(source, old):
    before = snapshot(old.parent)
    for command in (["to-hf", str(source), str(old), "--dry-run"], ["plan", str(source), str(old)]):
        assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "exists and is not an empty directory" in result.stderr
    assert snapshot(old.parent) == before


# What is not replaced


def test_without_overwrite_nothing_is_replaced(source, old):
    message = refused(source, old, overwrite=False)
    assert f"{old} exists and is not an empty directory." in message
    assert "--overwrite (overwrite=True)" in message
    refused(source, old, overwrite=False, restart=True)


@pytest.mark.parametrize("kind", ["file", "no checkpoint", "only weights", "hidden", "config.json is a directory"])
def test_what_is_no_checkpoint_is_not_overwritten(source, output, kind):
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        names = {"no checkpoint": "thesis.tex", "only weights": "model.safetensors", "hidden": ".git"}
        if kind in names:
            (output / names[kind]).write_text("mine")
        else:
            (output / "config.json").mkdir()
    message = refused(source, output)
    assert (
        f"{output} is not the directory of a checkpoint: it has no config.json and no internvl_bridge.json" in message
    )
    assert "Only plain checkpoints are overwritten" in message
    assert "--overwrite" not in refused(source, output, overwrite=False)


@pytest.mark.parametrize("name", ["optimizer.pt", "README.md", "adapter_model.safetensors", "link"])
def test_what_was_added_to_an_output_is_not_lost(source, old, name):
    (old / name).symlink_to("config.json") if name == "link" else (old / name).write_text("mine")
    message = refused(source, old)
    assert f"{old} holds more than a checkpoint: {name}." in message
    assert "--overwrite would remove it" in message


@pytest.mark.parametrize("name", ["optimizer.pt", "notes.txt", "training_args.bin", "rng_state_0.pth"])
def test_what_no_checkpoint_has_is_not_lost(source, output, name):
    output.mkdir()
    (output / "config.json").write_text("{}")
    (output / name).write_text("mine")
    assert f"{output} holds more than a checkpoint: {name}." in refused(source, output)


@pytest.mark.parametrize("role", ["source", "reference", "tokenizer"])
def test_what_an_input_has_through_links_is_not_lost(source, tmp_path, role):
    """As in a cache whose snapshots are links to blobs: here the blobs are what would be overwritten."""
    real, links = tmp_path / "real", tmp_path / "links"
    if role == "reference":
        internvl_bridge.to_hf(source, real)
    else:
        shutil.copytree(source, real)
    links.mkdir()
    for path in real.iterdir():
        (links / path.name).symlink_to(path)
    place = links if role == "source" else source
    options = {} if role == "source" else {role: str(links)}
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"is stored in .*, which would be replaced"):
        internvl_bridge.to_hf(place, real, overwrite=True, **options)
    assert snapshot(tmp_path) == before


def test_an_output_that_an_input_only_leads_through_is_not_lost(source, old, tmp_path):
    """The file itself is elsewhere, but the link to it would be replaced."""
    (source / "model.safetensors").rename(tmp_path / "blob")
    (old / "model.safetensors").unlink()
    (old / "model.safetensors").symlink_to(tmp_path / "blob")
    (source / "model.safetensors").symlink_to(old / "model.safetensors")
    assert f"{source / 'model.safetensors'} is stored in {old}, which would be replaced" in refused(source, old)


def test_links_that_lead_in_a_circle_are_no_hindrance(source, old):
    (source / "circle").symlink_to("circle")
    internvl_bridge.to_hf(source, old, overwrite=True)
    assert internvl_bridge.verify(source, old).identical


def test_what_is_put_into_an_output_while_its_successor_is_made_is_not_lost(source, old, tmp_path):
    def busy(_task: str, _total: int, _files: int) -> Callable[[int, int], None]:
        (old / "thesis.tex").write_text("mine")
        return lambda _done, _finished: None

    with pytest.raises(OutputError, match=r"holds more than a checkpoint: thesis\.tex") as caught:
        internvl_bridge.to_hf(source, old, overwrite=True, progress=busy)
    assert (old / "thesis.tex").read_text() == "mine"
    assert "finished file(s) are kept" in caught.value.__notes__[0]
    (old / "thesis.tex").rename(tmp_path / "thesis.tex")
    assert internvl_bridge.to_hf(source, old, overwrite=True).kept


@pytest.mark.parametrize("name", [".git", "runs", "checkpoint-500"])
def test_a_checkpoint_that_holds_directories_is_not_overwritten(source, old, name):
    (old / name).mkdir()
    (old / name / "precious").touch()
    assert f"{old} holds more than a checkpoint: the directory {name}." in refused(source, old)


def test_a_checkpoint_that_holds_a_link_to_a_directory_is_not_overwritten(source, old, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (old / "runs").symlink_to(tmp_path / "elsewhere")
    assert "holds more than a checkpoint: the directory runs." in refused(source, old)


@pytest.mark.parametrize("kind", ["checkpoint", "file", "nowhere", "itself", "empty"])
def test_a_link_is_not_overwritten(source, output, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "checkpoint":
        internvl_bridge.to_hf(source, target)
    elif kind == "file":
        target.write_text("mine")
    elif kind == "empty":
        target.mkdir()
    output.symlink_to(output if kind == "itself" else target)
    assert "or is a link" in refused(source, output)


@pytest.mark.parametrize("kind", ["same", "inside", "around", "link to it", "link into it", "through a link above"])
def test_the_source_is_never_overwritten(source, tmp_path, kind):
    top = tmp_path / "top"
    top.mkdir()
    source = source.rename(top / "source")
    if kind.startswith("link"):
        (top / "link").symlink_to(source)
    (tmp_path / "above").symlink_to(top)
    output = {
        "same": source,
        "inside": source / "output",
        "around": top,
        "link to it": top / "link",
        "link into it": top / "link" / "output",
        "through a link above": tmp_path / "above" / "source",
    }[kind]
    what = "are the same directory" if output.resolve() == source else "lies inside"
    assert what in refused(source, output)
    assert what in refused(source, output, overwrite=False)


@pytest.mark.parametrize("option", ["reference", "tokenizer"])
@pytest.mark.parametrize(
    ("kind", "overwrite"), [("same", True), ("link to it", True), ("inside", False), ("around", True)]
)
def test_an_output_is_not_what_it_is_compared_with_or_takes_its_tokenizer_from(
    option: str, kind: str, overwrite: bool, source, tmp_path
):
    other = tmp_path / "top" / "other"
    internvl_bridge.to_hf(source, other)
    (tmp_path / "link").symlink_to(other)
    output = {"same": other, "link to it": tmp_path / "link", "inside": other / "output", "around": tmp_path / "top"}[
        kind
    ]
    before = sorted(path.name for path in other.iterdir())
    with pytest.raises(OutputError, match=f"does not change its {option}|lies inside .* beside the {option}"):
        internvl_bridge.to_hf(source, output, overwrite=overwrite, **{option: other})
    assert sorted(path.name for path in other.iterdir()) == before


def test_a_source_that_is_a_link_is_never_overwritten(source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    assert "are the same directory" in refused(tmp_path / "link", source)


def test_the_workspace_of_an_output_is_never_the_source(source, tmp_path):
    # OUTPUT.partial would be the source itself
    source = source.rename(tmp_path / "output.partial")
    assert "output.partial" in refused(source, tmp_path / "output")


def test_a_source_inside_of_the_workspace_is_never_thrown_away(source, tmp_path):
    output = tmp_path / "output"
    partial = partial_path(output)
    partial.mkdir()
    (partial / "journal").touch()
    source = Path(shutil.move(source, partial / "source"))
    before = snapshot(source)
    with pytest.raises(OutputError):
        internvl_bridge.to_hf(source, output, restart=True)
    assert snapshot(source) == before


# A directory of that name that is somebody's own


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", ["file", "link", "directory", "files", "journal"])
def test_somebody_elses_partial_directory_is_left_alone(source, output, tmp_path, kind, restart):
    partial = partial_path(output)
    if kind == "file":
        partial.write_text("mine")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        partial.symlink_to("elsewhere")
    else:
        partial.mkdir()
        (partial / "thesis.tex").write_text("mine")
        if kind == "files":
            (partial / "files").mkdir()
            (partial / "files" / "figure.pdf").write_text("mine")
        elif kind == "journal":
            (partial / "journal").write_text("Monday: wrote a page.\n")
    message = refused(source, output, overwrite=False, restart=restart)
    assert f"{partial}, where the output would be collected, exists" in message
    assert "Move it away, or choose another output." in message
    refused(source, output, overwrite=True, restart=restart)
