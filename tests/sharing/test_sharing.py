"""An output on its way to others: its card, one commit, and what is never pushed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from adapters import lora_config, random_adapter, weights_of
from hub_client import hub_client
from hub_server import hub_server
from hub_state import TOKEN, Fault, Hub, files_of, repository
from safetensors.torch import save_file
from support import copy_custom
from typer.testing import CliRunner, Result

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import CheckpointError, OptionError
from internvl_bridge.places import hub as hub_module

CARD = """---
license: mit
base_model: org/older
tags: [vision, internvl]
---
# Whatever
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = copy_custom("qwen3-300m", tmp_path_factory.mktemp("sharing") / "source")
    (directory / "README.md").write_text(CARD)
    return directory


@pytest.fixture
def hub(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    repos = {
        "org/model": repository(files_of(source)),
        "org/old": repository({"model-00001-of-00009.safetensors": b"x"}),
    }
    with hub_server(repos) as running, hub_client(running, tmp_path / "home", token=TOKEN):
        yield running


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_a_card_has_what_the_source_states_and_how_it_was_made(source: Path, tmp_path: Path):
    output = tmp_path / "my-HF"
    report = internvl_bridge.to_hf(source, output, layout="l2", accept=["fork"])
    card = internvl_bridge.model_card(output)
    stated = metadata(card)
    assert (stated["license"], stated["base_model"], stated["library_name"]) == ("mit", "org/older", "transformers")
    assert stated["tags"] == ["vision", "internvl", "internvl-bridge"]
    assert "internvl-bridge to-hf SOURCE my-HF --layout l2 --accept fork" in card
    assert all(warning in card for warning in report.warnings)
    checksums = json.loads((output / "internvl_bridge.json").read_text())["checksums"]["files"]
    assert all(f"| `{name}` |" in card and checksum in card for name, checksum in checksums.items())
    assert run("card", output).stdout.strip() == card.strip()
    assert json.loads(run("card", output, "--json").stdout)["result"]["text"] == card


def test_of_a_source_on_the_hub_the_card_names_the_commit(hub: Hub):
    commit = hub.repos["org/model"].branches["main"]
    internvl_bridge.to_hf("org/model", "output", tokenizer="org/model")
    card = internvl_bridge.model_card("output", name="me/output")
    assert metadata(card)["base_model"] == ["org/model"]
    place = f"hf://org/model@{commit}"
    assert f"internvl-bridge to-hf {place} output --tokenizer {place}" in card


@pytest.mark.parametrize("text", ["", "---\n[a: }\n---\n", "---\n- a\n---\n", "---\nlicense: mit"])
def test_a_card_that_cannot_be_read_gives_nothing(tmp_path: Path, text: str):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    (source / "README.md").write_text(text)
    internvl_bridge.to_hf(source, tmp_path / "output")
    assert "license" not in metadata(internvl_bridge.model_card(tmp_path / "output"))


def test_a_directory_that_no_conversion_made_has_no_card(source: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="how the output was made"):
        internvl_bridge.model_card(source)
    with pytest.raises(CheckpointError, match="does not exist"):
        internvl_bridge.model_card(tmp_path / "nothing")


def test_a_conversion_is_pushed_in_one_commit(hub: Hub, source: Path):
    done = run("to-hf", source, "output", "--push-to-hub", "me/output", "--private")
    assert done.exit_code == 0, done.stderr
    made = hub.repos["me/output"]
    assert made.private
    assert len(made.commits) == 2  # the first one makes the repository
    there = made.commits[made.branches["main"]]
    assert {*there} - {".gitattributes"} == {*(path.name for path in Path("output").iterdir()), "README.md"}
    assert made.branches["main"][:7] in done.stdout
    internvl_bridge.to_custom("me/output", "back")
    assert internvl_bridge.verify(source, "back").identical


def test_an_adapter_is_pushed(hub: Hub, source: Path):
    Path("lora").mkdir()
    save_file(random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4), "lora/adapter_model.safetensors")
    Path("lora/adapter_config.json").write_text(json.dumps(lora_config(r=4)))
    done = run("to-hf", "lora", "output", "--base", source, "--push-to-hub", "me/lora")
    assert done.exit_code == 0, done.stderr
    made = hub.repos["me/lora"]
    there = made.commits[made.branches["main"]]
    assert metadata(there["README.md"].read().decode())["library_name"] == "peft"


def test_a_merged_model_is_pushed(hub: Hub, source: Path):
    Path("lora").mkdir()
    save_file(random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4), "lora/adapter_model.safetensors")
    Path("lora/adapter_config.json").write_text(json.dumps(lora_config(r=4)))
    done = run("merge", source, "output", "--adapter", "lora", "--push-to-hub", "me/merged")
    assert done.exit_code == 0, done.stderr
    card = internvl_bridge.model_card("output")
    assert "computed its weights" in card
    assert metadata(card)["license"] == "mit"
    assert "me/merged" in hub.repos


def test_what_is_not_as_it_was_made_is_not_pushed(hub: Hub, source: Path):
    internvl_bridge.to_hf(source, "output")
    path = Path("output/model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not as it was made"):
        internvl_bridge.push_to_hub("output", "me/output")
    assert "me/output" not in hub.repos


def test_weights_that_would_stay_are_refused(hub: Hub, source: Path):
    internvl_bridge.to_hf(source, "output")
    with pytest.raises(CheckpointError, match="would stay beside"):
        internvl_bridge.push_to_hub("output", "org/old")
    assert len(hub.repos["org/old"].commits) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--push-to-hub", "me/output", "--no-verify"], "Only what was verified"),
        (["--push-to-hub", "output"], "is not the name of a repository"),
        (["--push-to-hub", "me/a/b"], "is not the name of a repository"),
        (["--private"], "--push-to-hub"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_cannot_be_pushed_is_refused_before_the_work(source: Path, options: list[str], reason: str):
    done = run("to-hf", source, "output", *options)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not Path("output").exists()


def test_without_a_token_nothing_begins(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with hub_server({}) as hub, hub_client(hub, tmp_path / "home"):
        done = run("to-hf", source, "output", "--push-to-hub", "me/output")
    assert done.exit_code == 2
    assert "hf auth" in done.stderr
    assert not Path("output").exists()


def test_whoever_may_not_write_learns_that_the_output_is_complete(hub: Hub, source: Path):
    hub.faults.append(Fault(r"/commit/", method="POST", status=403))
    done = run("to-hf", source, "output", "--push-to-hub", "me/output")
    assert done.exit_code == 2
    assert "internvl-bridge push output me/output" in done.stderr
    assert internvl_bridge.verify_checksums("output").intact
    assert TOKEN not in done.output


def test_a_push_that_broke_off_is_tried_again(hub: Hub, source: Path):
    internvl_bridge.to_hf(source, "output")
    hub.faults.append(Fault(r"/commit/", method="POST", times=1, status=500))
    assert run("push", "output", "me/output").exit_code == 2
    done = run("push", "output", "me/output")
    assert done.exit_code == 0
    assert json.loads(run("push", "output", "me/output", "--json").stdout)["result"]["repository"] == "me/output"


def test_what_shall_be_private_is_not_pushed_to_a_public_repository(hub: Hub, source: Path):
    internvl_bridge.to_hf(source, "output")
    with pytest.raises(CheckpointError, match="is public"):
        internvl_bridge.push_to_hub("output", "org/model", private=True)
    assert len(hub.repos["org/model"].commits) == 1


def test_the_command_that_tries_again_is_whole(hub: Hub, source: Path):
    hub.faults.append(Fault(r"/commit/", method="POST", status=403))
    done = run("to-hf", source, "my output", "--push-to-hub", "me/output", "--private")
    assert "internvl-bridge push 'my output' me/output --private" in done.stderr


def test_a_file_that_changes_before_the_commit_is_not_pushed(hub: Hub, source: Path, monkeypatch: pytest.MonkeyPatch):
    internvl_bridge.to_hf(source, "output")
    real = hub_module.HfApi.create_repo

    def changing(self: object, *arguments: object, **options: object) -> object:
        Path("output/config.json").write_text("{}")
        return real(self, *arguments, **options)

    monkeypatch.setattr(hub_module.HfApi, "create_repo", changing)
    with pytest.raises(CheckpointError, match="was changed while"):
        internvl_bridge.push_to_hub("output", "me/output")
    assert len(hub.repos["me/output"].commits) == 1


@pytest.mark.parametrize("name", ["adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin"])
def test_what_would_change_the_model_is_refused(hub: Hub, source: Path, name: str):
    hub.repos["org/before"] = repository({name: b"{}", "README.md": b""})
    internvl_bridge.to_hf(source, "output")
    with pytest.raises(CheckpointError, match=name):
        internvl_bridge.push_to_hub("output", "org/before")


def test_what_the_reference_contradicts_is_not_pushed(hub: Hub, source: Path):
    internvl_bridge.to_hf(source, "reference")
    config = Path("reference/config.json")
    values = json.loads(config.read_text())
    values["text_config"]["rms_norm_eps"] = 0.5
    config.write_text(json.dumps(values))
    done = run("to-hf", source, "output", "--reference", "reference", "--push-to-hub", "me/output")
    assert done.exit_code == 1
    assert "is not pushed" in done.stderr
    assert "me/output" not in hub.repos


@pytest.mark.parametrize("field", ["tags: [{a: b}]", "license: 2024-99-99", "license: 0b_", "x: " + "[" * 3000])
def test_no_card_of_a_source_stops_a_push(tmp_path: Path, field: str):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    (source / "README.md").write_text(f"---\n{field}\nlibrary_name: x\n---\n")
    internvl_bridge.to_hf(source, tmp_path / "output")
    assert metadata(internvl_bridge.model_card(tmp_path / "output"))["library_name"] == "transformers"


def test_a_warning_makes_no_heading(tmp_path: Path):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    config = source / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "evil\n## EVIL": 1}))
    internvl_bridge.to_hf(source, tmp_path / "output")
    assert "\n## EVIL" not in internvl_bridge.model_card(tmp_path / "output")


def test_a_name_with_more_is_not_a_repository():
    with pytest.raises(OptionError, match="owner/name"):
        internvl_bridge.push_to_hub("output", "me/output@main")
