"""What should stop somebody is said before the work, what else is worth knowing after it; the output remembers both."""

import json
import shutil
from pathlib import Path

import pytest
from support import DATA, copy_custom, edit_json, said
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli import commands
from internvl_bridge.cli.app import app
from internvl_bridge.errors import CheckpointError, ConfigError
from internvl_bridge.metadata.sidecar import SIDECAR_FILE

LACKS_TOKENIZER = DATA / "hf" / "qwen2-300m@state-dict"


def record_of(output: Path) -> dict:
    return json.loads((output / SIDECAR_FILE).read_text())["conversion"]


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3-300m", "internlm2-300m"])
def test_a_plain_release_converts_without_a_warning_and_with_few_notes(name: str, tmp_path: Path):
    report = internvl_bridge.to_hf(copy_custom(name, tmp_path / "source"), tmp_path / "hf")
    assert report.warnings == ()
    assert len(report.notes) <= 3


@pytest.mark.parametrize("flags", [[], ["--quiet"], ["--json"]])
def test_warnings_come_before_the_work_and_notes_after_it(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(*_arguments: object) -> None:
        raise RuntimeError

    arguments = ["repair", str(LACKS_TOKENIZER), str(tmp_path / "output"), *flags]
    monkeypatch.setattr(commands, "carry_out", failing)
    stopped = CliRunner().invoke(app, arguments).stderr.splitlines()
    monkeypatch.undo()
    done = CliRunner().invoke(app, arguments)

    assert [line.split(" ")[0] for line in stopped] == ["Warning:", "Warning:", "Error:"]
    assert done.stderr.splitlines() == stopped[:-1]
    assert ("Note: The source has no generation_config.json" in done.stdout) == (flags == [])


def test_a_dry_run_warns_too(tmp_path: Path):
    result = CliRunner().invoke(app, ["repair", str(LACKS_TOKENIZER), str(tmp_path / "output"), "--dry-run"])
    assert result.stderr.startswith("Warning: ")
    assert "Warning" not in result.stdout


def test_the_sidecar_remembers_options_warnings_and_notes(tmp_path: Path):
    report = internvl_bridge.repair(
        LACKS_TOKENIZER, tmp_path / "output", layout="l2", workers=1, accept=["small-shards"], max_shard_size=50_000
    )
    assert record_of(tmp_path / "output") == {
        "program": f"internvl-bridge {internvl_bridge.__version__}",
        "command": "repair",
        "options": {"layout": "l2", "max_shard_size": 50_000},
        "filled": [],
        "accepted": ["small-shards"],
        "warnings": list(report.warnings),
        "notes": list(report.notes),
    }
    assert report.warnings
    assert report.notes


@pytest.mark.parametrize("command", ["to_hf", "to_custom", "repair"])
def test_an_output_does_not_show_where_it_was_made(command: str, tmp_path: Path):
    home = tmp_path / "of-a-user"
    copy_custom("internlm2-300m", home / "custom")
    shutil.copytree(LACKS_TOKENIZER, home / "hf")
    (home / "hf" / SIDECAR_FILE).write_text("{}")
    edit_json(home / "custom" / "preprocessor_config.json", lambda values: values.update(image_mean=[0, 0, 0]))
    convert = getattr(internvl_bridge, command)
    source, options = home / "hf", {"tokenizer": home / "custom"}
    if command == "to_hf":
        source, options = home / "custom", {"tokenizer": DATA / "tokenizers" / "bpe"}
    if command == "to_custom":
        (source / SIDECAR_FILE).unlink()
        options["reference"] = copy_custom("qwen2-300m", home / "reference")
    report = convert(source, tmp_path / "output", **options)
    assert said(report)
    assert "of-a-user" not in (tmp_path / "output" / SIDECAR_FILE).read_text()
    assert record_of(tmp_path / "output")["options"]["tokenizer"] == Path(options["tokenizer"]).name


def test_a_text_that_somebody_made_very_long_stays_short_in_a_note(tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "source")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config["text_config"].update({"x" * 1_000_000: 1}))
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert max(map(len, said(report))) < 3000


# config.json against what else is known


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A custom checkpoint, and the HF one that was made from it."""
    custom = copy_custom("internlm2-300m", tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    return custom, tmp_path / "hf"


def set_text(directory: Path, **values: object) -> None:
    edit_json(directory / "config.json", lambda config: config["text_config"].update(values))


@pytest.mark.parametrize(
    ("options", "code"), [([], 0), (["--reference"], 1), (["--reference", "--accept", "fields"], 0)]
)
def test_a_config_that_computes_something_else_than_the_other_format_remembers(
    options: list[str], code: int, pair: tuple[Path, Path], tmp_path: Path
):
    custom, hf = pair
    set_text(hf, rms_norm_eps=0.25)
    arguments = [
        part for option in options for part in ([option, str(custom)] if option == "--reference" else [option])
    ]
    result = CliRunner().invoke(app, ["to-custom", str(hf), str(tmp_path / "back"), "--json", *arguments])
    assert result.exit_code == code
    assert ("disagree about what the model computes: text_config.rms_norm_eps (0.25 and 1e-06)") in result.stderr
    found = json.loads(result.stdout)["result"]
    assert found["fields"] == ({"text_config.rms_norm_eps": "0.25 and 1e-06"} if "--reference" in options else {})
    assert found["ok"] is (code == 0)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["llm_config"]["rms_norm_eps"] == 0.25


@pytest.mark.parametrize("by_reference", [True, False])
def test_the_same_shapes_divided_among_other_heads_are_refused(
    by_reference: bool, pair: tuple[Path, Path], tmp_path: Path
):
    custom, hf = pair
    set_text(hf, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    if by_reference:
        (hf / SIDECAR_FILE).unlink()
    with pytest.raises(
        ConfigError, match=r"divide the same tensors in two ways: 2 heads .* of 32 elements, and 4 heads"
    ):
        internvl_bridge.to_custom(hf, tmp_path / "back", reference=custom if by_reference else None)
    assert not (tmp_path / "back").exists()


def test_weights_that_nobody_has_written_are_a_warning_and_refused_beside_an_unfinished_download(tmp_path: Path):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    path = source / "model.safetensors"
    data, size = path.read_bytes(), path.stat().st_size
    place = 8 + int.from_bytes(data[:8], "little")
    with path.open("wb") as file:
        file.write(data[:place])
        file.truncate(size)
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert any("tensors are holes of their files, and read as zeros" in warning for warning in report.warnings)
    (source / "model.safetensors.aria2").touch()
    with pytest.raises(CheckpointError, match="is not finished"):
        internvl_bridge.to_hf(source, tmp_path / "again")
