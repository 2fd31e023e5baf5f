"""`internvl-bridge repair`: any HF checkpoint becomes one that every transformers loads, or is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import DATA, NAMES, add_modules, copy_custom, edit_json, files_of, load_all, rewrite, said, same_bits
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.metadata.sidecar import OF_EVERY_OUTPUT

Custom = Callable[[str], Path]

SAMPLES = sorted(path.name for path in (DATA / "hf").iterdir())
MOE = "qwen3moe-6b"
FUSED, SPLIT = f"{MOE}@5.0.0", f"{MOE}@5.4.0"
EXPERTS = "language_model.model.layers.1.mlp.experts"
HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
SIDECAR = "internvl_bridge.json"


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def invoke_json(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["result"]


def config_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "config.json").read_text())


def stored(name: str, directory: Path) -> Path:
    """A writable copy of a stored HF checkpoint."""
    return shutil.copytree(DATA / "hf" / name, directory)


@pytest.fixture
def hf(custom: Custom, tmp_path: Path) -> Path:
    """A complete HF checkpoint with experts, one tensor each, and a sidecar."""
    internvl_bridge.to_hf(custom(MOE), tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def fused(hf: Path, tmp_path: Path) -> Path:
    """The same with fused experts."""
    internvl_bridge.repair(hf, tmp_path / "fused", experts="fused")
    return tmp_path / "fused"


# --- Once is enough -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_repairing_once_more_changes_no_byte(name: str, tmp_path: Path):
    report = internvl_bridge.repair(DATA / "hf" / name, tmp_path / "once")
    again = internvl_bridge.repair(tmp_path / "once", tmp_path / "twice")
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "once")
    assert sorted(report.files) == sorted(files_of(tmp_path / "once"))
    assert again.left_behind == ()
    assert (again.found.spelling, again.found.saved_by) == ("L1", "4.52.1")


@pytest.mark.parametrize("name", NAMES)
def test_what_to_hf_writes_needs_no_repair(name: str, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom(name), tmp_path / "hf")
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired")
    assert files_of(tmp_path / "repaired") == files_of(tmp_path / "hf")


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("experts", ["split", "fused"])
def test_what_to_hf_writes_otherwise_is_what_repair_writes_otherwise(layout, experts, custom: Custom, tmp_path: Path):
    source = custom(MOE)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_hf(source, tmp_path / "direct", layout=layout, experts=experts, order="name")
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired", layout=layout, experts=experts, order="name")
    assert files_of(tmp_path / "repaired") == files_of(tmp_path / "direct")
    report = internvl_bridge.repair(tmp_path / "direct", tmp_path / "back", order="name")
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "expected", order="name")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "expected")
    assert report.found.spelling == layout.upper() + (" with fused experts" if experts == "fused" else "")


@pytest.mark.parametrize("command", ["repair", "to-custom"])
def test_a_bare_head_before_keys_of_transformers_4(command: str, hf: Path, tmp_path: Path):
    bare = shutil.copytree(hf, tmp_path / "bare")
    rewrite(bare, rename(HEAD, "lm_head.weight"))
    report = invoke_json(command, bare, tmp_path / "output", "--order", "name")
    assert report["found"]["spelling"] == "L1, bare head"
    assert invoke(command, hf, tmp_path / "expected", "--order", "name").exit_code == 0
    output, expected = files_of(tmp_path / "output"), files_of(tmp_path / "expected")
    assert output == expected
    assert internvl_bridge.verify(hf, bare).identical


@pytest.mark.parametrize("name", SAMPLES)
def test_no_bit_changes(name: str, tmp_path: Path):
    report = internvl_bridge.repair(DATA / "hf" / name, tmp_path / "repaired")
    assert report.verification is not None
    assert report.verification.identical
    assert len(report.verification.equal) == report.tensors == len(load_all(tmp_path / "repaired"))
    found = internvl_bridge.verify(DATA / "hf" / name, tmp_path / "repaired")
    assert found.identical
    assert found.l2 == 0
    assert len(found.equal) == report.tensors


def test_a_flipped_bit_would_be_seen(tmp_path: Path):
    internvl_bridge.repair(DATA / "hf" / FUSED, tmp_path / "repaired")
    key = f"{EXPERTS}.2.up_proj.weight"
    rewrite(tmp_path / "repaired", lambda tensors: tensors[key].view(torch.int16)[3, 4].bitwise_xor_(1))
    assert [d.key for d in internvl_bridge.verify(DATA / "hf" / FUSED, tmp_path / "repaired").differences] == [key]


def test_the_source_is_never_touched(tmp_path: Path):
    source = stored(FUSED, tmp_path / "source")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    internvl_bridge.repair(source, tmp_path / "repaired")
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()} == before


# --- Words and options --------------------------------------------------------------------------------------------


def test_it_says_what_it_found_and_did(tmp_path: Path):
    result = invoke("repair", DATA / "hf" / FUSED, tmp_path / "repaired")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert f"Repaired {DATA / 'hf' / FUSED} into {tmp_path / 'repaired'} (hf format, Qwen3-MoE)" in words
    found = "HF keys spelled L1 with fused experts, output head stored, in safetensors, config.json by "
    assert f"Found: {found}transformers 5.0.0 " in words
    assert "85 tensors" in words
    assert "every bit is equal" in words
    assert "has no tokenizer" in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["to-hf", "to-custom"])
def test_other_commands_convert(command: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m") if command == "to-hf" else DATA / "hf" / "qwen2-300m@state-dict"
    assert "Converted " in invoke(command, source, tmp_path / "output").stdout


@pytest.mark.parametrize(
    ("options", "spelling", "tensors"),
    [
        ([], "L1", 85),
        (["--layout", "l1", "--experts", "split"], "L1", 85),
        (["--layout", "l2"], "L2", 85),
        (["--experts", "fused"], "L1 with fused experts", 65),
        (["--layout", "l2", "--experts", "fused"], "L2 with fused experts", 65),
    ],
)
def test_the_target_can_be_chosen(options: list[str], spelling: str, tensors: int, tmp_path: Path, custom: Custom):
    report = invoke_json("repair", DATA / "hf" / SPLIT, tmp_path / "repaired", *options)
    assert report["tensors"] == tensors
    assert report["found"]["spelling"] == "L3"
    assert internvl_bridge.inspect(tmp_path / "repaired").spelling == spelling
    made = invoke_json("to-hf", custom(MOE), tmp_path / "hf", *options)
    assert made["tensors"] == tensors
    assert made["found"]["spelling"] is None
    assert load_all(tmp_path / "hf").keys() == load_all(tmp_path / "repaired").keys()


@pytest.mark.parametrize("options", [["--layout", "l3"], ["--experts", "stacked"], ["--tied", "copy"], ["--reference"]])
def test_there_is_no_such_target(options: list[str], tmp_path: Path):
    result = invoke("repair", DATA / "hf" / SPLIT, tmp_path / "repaired", *options)
    assert result.exit_code == 2
    assert not (tmp_path / "repaired").exists()


@pytest.mark.parametrize("choice", [{"layout": "l3"}, {"layout": "L1"}, {"experts": "stacked"}, {"order": "size"}])
def test_there_is_no_such_choice(choice: dict[str, Any], tmp_path: Path):
    [(name, value)] = choice.items()
    with pytest.raises(internvl_bridge.BridgeError, match=f"'{value}' is not a choice for {name}"):
        internvl_bridge.repair(DATA / "hf" / SPLIT, tmp_path / "repaired", **choice)
    assert list(tmp_path.iterdir()) == []


def test_the_report_for_programs(tmp_path: Path):
    report = invoke_json("repair", DATA / "hf" / FUSED, tmp_path / "repaired")
    assert (
        report["found"].items()
        >= {
            "container": "safetensors",
            "format": "hf",
            "spelling": "L1 with fused experts",
            "head": "own",
            "saved_by": "5.0.0",
            "tied": False,
        }.items()
    )
    assert (report["format"], report["family"], report["ok"]) == ("hf", "Qwen3-MoE", True)
    assert report["verification"]["identical"] is True
    assert len(report["verification"]["tensors"]) == report["tensors"] == 85
    assert set(report["verification"]["tensors"].values()) == {0}
    assert sorted(report["files"]) == sorted(files_of(tmp_path / "repaired"))
    assert report["bytes"] == sum(tensor.nbytes for tensor in load_all(tmp_path / "repaired").values())
    assert report["reference"] is None


def test_a_dry_run_names_the_slices(tmp_path: Path):
    result = invoke("repair", DATA / "hf" / FUSED, tmp_path / "repaired", "--dry-run")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []
    lines = [line.strip() for line in result.stdout.splitlines()]
    layer = "language_model.model.layers.*.mlp.experts"
    assert f"8 x {layer}.*.gate_proj.weight <- {layer}.gate_up_proj[*, 0:40]" in lines
    assert f"8 x {layer}.*.up_proj.weight <- {layer}.gate_up_proj[*, 40:80]" in lines
    assert f"8 x {layer}.*.down_proj.weight <- {layer}.down_proj[*, 0:64]" in lines
    assert "HF keys spelled L1 with fused experts" in result.stdout
    assert "1 file of weights" in result.stdout


def test_a_dry_run_names_what_is_fused(hf: Path, tmp_path: Path):
    result = invoke("repair", hf, tmp_path / "repaired", "--dry-run", "--experts", "fused", "--layout", "l2")
    assert result.exit_code == 0, result.output
    target, source = "model.language_model.layers.*.mlp.experts", "language_model.model.layers.*.mlp.experts"
    runs = f"8 runs of {source}.*.gate_proj.weight, {source}.*.up_proj.weight"
    assert f"2 x {target}.gate_up_proj <- {runs}" in result.stdout
    assert f"2 x {target}.down_proj <- 4 runs of {source}.*.down_proj.weight" in result.stdout
    assert not (tmp_path / "repaired").exists()


def test_a_dry_run_names_the_copy_of_the_head(tmp_path: Path):
    source = DATA / "hf" / "qwen3-300m-tied@5.4.0"
    result = invoke("to-custom", source, tmp_path / "custom", "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"1 x {HEAD} <- model.language_model.model.embed_tokens.weight" in result.stdout
    assert f"{HEAD} is a copy of {EMBEDDINGS}" in " ".join(result.stdout.split())
    kept = invoke("to-custom", source, tmp_path / "custom", "--dry-run", "--tied", "keep")
    assert HEAD not in kept.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_for_programs_says_which_elements(tmp_path: Path):
    plan = invoke_json("repair", DATA / "hf" / FUSED, tmp_path / "repaired", "--dry-run")
    assert plan["found"]["spelling"] == "L1 with fused experts"
    assert plan["plan"][f"{EXPERTS}.3.up_proj.weight"] == {
        "dtype": "BF16",
        "shape": [40, 64],
        "runs": [[f"{EXPERTS}.gate_up_proj", (3 * 80 + 40) * 64, (3 * 80 + 80) * 64]],
    }
    assert plan["plan"][f"{EXPERTS}.0.down_proj.weight"]["runs"] == [[f"{EXPERTS}.down_proj", 0, 64 * 40]]


def test_it_can_be_resharded_and_ordered(tmp_path: Path):
    source = DATA / "hf" / FUSED
    report = invoke_json(
        "repair",
        source,
        tmp_path / "repaired",
        "--accept",
        "small-shards",
        "--max-shard-size",
        "100KB",
        "--order",
        "name",
        "--no-verify",
    )
    assert report["verification"] is None
    index = json.loads((tmp_path / "repaired" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 4
    assert index["metadata"]["total_size"] == report["bytes"]
    assert internvl_bridge.verify(source, tmp_path / "repaired").identical


# --- What stands beside the weights -------------------------------------------------------------------------------


def test_the_config_is_that_of_both_versions(tmp_path: Path):
    internvl_bridge.repair(DATA / "hf" / FUSED, tmp_path / "repaired")
    before, after = config_of(DATA / "hf" / FUSED), config_of(tmp_path / "repaired")
    text = after["text_config"]
    assert before["text_config"]["rope_parameters"] == text["rope_parameters"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 1_000_000
    assert (text["num_experts"], text["num_local_experts"]) == (4, 4)
    assert after["dtype"] == after["torch_dtype"] == "bfloat16"
    assert (after["tie_word_embeddings"], text["tie_word_embeddings"]) == (False, False)
    assert after["architectures"] == ["InternVLForConditionalGeneration"]
    changed = {"rope_scaling", "rope_theta", "num_local_experts"}
    assert {name: value for name, value in before["text_config"].items() if text[name] != value} == {}
    assert changed & before["text_config"].keys() == set()
    assert {"rope_theta", "num_local_experts"} <= text.keys() - before["text_config"].keys()


def test_a_config_in_the_words_of_transformers_4_gets_those_of_5(hf: Path, tmp_path: Path):
    def age(config: dict[str, Any]) -> None:
        for name in ("rope_parameters", "num_local_experts"):
            del config["text_config"][name]
        del config["dtype"]

    complete = config_of(hf)
    edit_json(hf / "config.json", age)
    internvl_bridge.repair(hf, tmp_path / "repaired")
    assert config_of(tmp_path / "repaired") == complete


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", MOE, "qwen3-300m-tied"])
def test_the_way_back_to_the_custom_checkpoint_is_handed_on(name: str, layout, custom: Custom, tmp_path: Path):
    source = custom(name)
    add_modules(source)
    (source / "README.md").write_text("# A model\n")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    report = internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired", layout=layout)
    kept, handed_on = (json.loads((tmp_path / name / SIDECAR).read_bytes()) for name in ("hf", "repaired"))
    assert kept.pop("checksums") is not None
    assert kept.pop("conversion") != handed_on.pop("conversion")
    assert kept.pop("checksum") != handed_on.pop("checksum")
    assert handed_on.pop("checksums")["files"].keys() == set(report.files) - {SIDECAR}
    assert handed_on == kept
    assert SIDECAR in report.files
    internvl_bridge.to_custom(tmp_path / "repaired", tmp_path / "back")
    (tmp_path / "back" / SIDECAR).unlink()
    assert files_of(tmp_path / "back") == files_of(source)


def test_a_sidecar_that_is_none_is_left_behind_and_named(hf: Path, tmp_path: Path):
    internvl_bridge.to_custom(DATA / "hf" / SPLIT, tmp_path / "other")
    shutil.copy(tmp_path / "other" / SIDECAR, hf)
    report = internvl_bridge.repair(hf, tmp_path / "repaired")
    assert json.loads((tmp_path / "repaired" / SIDECAR).read_bytes()).keys() == {*OF_EVERY_OUTPUT, "version"}
    assert any("The sidecar is left behind" in note for note in said(report))


def test_what_is_missing_is_named(tmp_path: Path):
    report = internvl_bridge.repair(DATA / "hf" / FUSED, tmp_path / "repaired")
    assert any("has no tokenizer" in note and "--tokenizer" in note for note in said(report))
    tokenizer = DATA / "tokenizers" / "bpe"
    lent = internvl_bridge.repair(DATA / "hf" / FUSED, tmp_path / "lent", tokenizer=tokenizer)
    assert not any("has no tokenizer" in note for note in said(lent))
    assert f"The tokenizer is that of bpe, not of {FUSED}." in said(lent)
    assert (tmp_path / "lent" / "tokenizer.json").exists()


def test_a_wrong_image_token_is_corrected_and_named(hf: Path, tmp_path: Path):
    edit_json(hf / "config.json", lambda config: config.update(image_token_id=151667))
    report = internvl_bridge.repair(hf, tmp_path / "repaired")
    assert config_of(tmp_path / "repaired")["image_token_id"] == 590
    assert any("image_token_id 151667, but the tokenizer has 590" in note for note in said(report))


def test_modules_and_states_of_trainers_are_left_behind(hf: Path, tmp_path: Path):
    for name in ("modeling_internvl_chat.py", "trainer_state.json", "optimizer.pt"):
        (hf / name).write_bytes(b"{}")
    (hf / "README.md").write_text("kept\n")
    report = internvl_bridge.repair(hf, tmp_path / "repaired")
    assert {"modeling_internvl_chat.py", "trainer_state.json", "optimizer.pt"} <= set(report.left_behind)
    assert (tmp_path / "repaired" / "README.md").read_text() == "kept\n"


# --- Refusals -----------------------------------------------------------------------------------------------------


def refuse(source: Path, *words: str, command: str = "repair", options: tuple[str, ...] = ()) -> None:
    """Run a repair that must be refused, by the words given, and must leave nothing behind."""
    before = sorted(path.name for path in source.parent.iterdir())
    result = invoke(command, source, source.parent / "output", *options)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert sorted(path.name for path in source.parent.iterdir()) == before


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def test_a_custom_source(custom: Custom):
    refuse(custom(MOE), "is in the custom format", "internvl-bridge to-hf")


def test_an_hf_source_of_to_hf(hf: Path):
    refuse(hf, "already in the HF format", "internvl-bridge repair", command="to-hf")


@pytest.mark.parametrize("command", ["repair", "to-custom"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "vision_tower.encoder.layer.0.lambda_1",
            "model.vision_tower.encoder.layer.0.lambda_1",
            ["mixes spellings", "model.vision_tower.encoder.layer.0.lambda_1 as L2", "as L1", "save it again"],
        ),
        (
            "language_model.model.norm.weight",
            "model.language_model.model.norm.weight",
            ["mixes spellings", "model.language_model.model.norm.weight as L", "as L1"],
        ),
        ("language_model.model.norm.weight", "language_model.norm.weight", ["language_model.norm.weight"]),
        (HEAD, "model.lm_head.weight", ["model.lm_head.weight"]),
        (
            "multi_modal_projector.linear_1.bias",
            "model.model.multi_modal_projector.linear_1.bias",
            ["model.model.multi_modal_projector.linear_1.bias"],
        ),
        (
            "vision_tower.encoder.layer.0.lambda_1",
            "module.vision_tower.encoder.layer.0.lambda_1",
            ["module.", "training wrapper"],
        ),
    ],
)
def test_a_key_that_was_renamed_half_way(command: str, old: str, new: str, words: list[str], tmp_path: Path):
    source = internvl_bridge.repair(DATA / "hf" / FUSED, tmp_path / "source").output
    rewrite(source, rename(old, new))
    refuse(source, *words, command=command)


def test_a_model_with_two_heads(hf: Path):
    rewrite(hf, lambda tensors: tensors.update({"lm_head.weight": tensors[HEAD].clone()}))
    refuse(hf, "mixes spellings", "lm_head.weight", "save it again")


def test_the_head_of_another_spelling(hf: Path, tmp_path: Path):
    internvl_bridge.repair(hf, tmp_path / "raw", layout="l2")
    rewrite(tmp_path / "raw", rename("lm_head.weight", HEAD))
    refuse(tmp_path / "raw", f"mixes spellings: {HEAD} as L", "as L2")


def test_layouts_are_mixed_even_if_no_tensor_is_missing(hf: Path):
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.language_model.norm.weight"] = tensors["language_model.model.norm.weight"].clone()

    rewrite(hf, add)
    refuse(hf, "mixes spellings: model.language_model.norm.weight as L2", "as L1")


@pytest.mark.parametrize("command", ["repair", "to-custom"])
def test_experts_of_one_layer_fused_and_of_the_other_not(command: str, hf: Path, fused: Path):
    stacked = {key: tensor for key, tensor in load_all(fused).items() if key.startswith(f"{EXPERTS}.")}

    def mix(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith(f"{EXPERTS}.")]:
            del tensors[key]
        tensors.update(stacked)

    rewrite(hf, mix)
    words = (f"{EXPERTS}.down_proj, {EXPERTS}.gate_up_proj as fused experts", "as split experts")
    refuse(hf, "mixes spellings", *words, command=command)


@pytest.mark.parametrize("command", ["repair", "to-custom"])
@pytest.mark.parametrize(
    ("part", "cut", "shape"),
    [
        ("gate_up_proj", lambda tensor: tensor[:3], [3, 80, 64]),
        ("gate_up_proj", lambda tensor: tensor[:, :79], [4, 79, 64]),
        ("gate_up_proj", lambda tensor: tensor[:, :40], [4, 40, 64]),
        ("gate_up_proj", lambda tensor: tensor.flatten(0, 1), [320, 64]),
        ("gate_up_proj", lambda tensor: tensor.transpose(1, 2), [4, 64, 80]),
        ("down_proj", lambda tensor: tensor[1:], [3, 64, 40]),
        ("down_proj", lambda tensor: tensor.transpose(1, 2), [4, 40, 64]),
    ],
)
def test_fused_experts_of_another_shape(command: str, part: str, cut, shape: list[int], fused: Path):
    key = f"{EXPERTS}.{part}"
    rewrite(fused, lambda tensors: tensors.update({key: cut(tensors[key]).contiguous()}))
    counted = ["for each of 4 experts"] if len(shape) < 3 or shape[0] != 4 else []
    refuse(fused, key, str(shape), *counted, command=command)


def test_a_fused_tensor_that_is_missing(fused: Path):
    rewrite(fused, lambda tensors: tensors.pop(f"{EXPERTS}.down_proj"))
    refuse(fused, f"{EXPERTS}.down_proj", "does not have it", "incomplete")


@pytest.mark.parametrize("options", [(), ("--experts", "fused")])
def test_an_expert_that_is_missing(options: tuple[str, ...], hf: Path):
    key = f"{EXPERTS}.2.up_proj.weight"
    rewrite(hf, lambda tensors: tensors.pop(key))
    refuse(hf, key, "incomplete", options=options)


@pytest.mark.parametrize("options", [(), ("--experts", "fused"), ("--layout", "l2")])
@pytest.mark.parametrize("count", [3, 5, 8])
@pytest.mark.parametrize("kind", ["split", "fused"])
def test_a_wrong_number_of_experts(kind: str, count: int, options: tuple[str, ...], hf: Path, fused: Path):
    source = fused if kind == "fused" else hf
    edit_json(
        source / "config.json",
        lambda config: config["text_config"].update(num_experts=count, num_local_experts=count),
    )
    refuse(source, ".mlp.experts.", "config.json", options=options)


def test_numbers_of_experts_that_disagree(hf: Path):
    edit_json(hf / "config.json", lambda config: config["text_config"].update(num_local_experts=5))
    refuse(hf, "says twice what num_experts is", "4", "5")


def test_rotary_bases_that_disagree(hf: Path):
    edit_json(hf / "config.json", lambda config: config["text_config"].update(rope_theta=5.0))
    refuse(hf, "says twice what rope_theta is")


def test_fused_experts_of_a_model_without_experts(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen3-300m"), tmp_path / "hf")
    key = "language_model.model.layers.0.mlp.experts.gate_up_proj"
    rewrite(tmp_path / "hf", lambda tensors: tensors.update({key: torch.zeros(4, 80, 64)}))
    refuse(tmp_path / "hf", key, "all experts in one tensor")


def test_fusing_says_nothing_to_a_model_with_one_way(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("gptoss-300m"), tmp_path / "hf")
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired", experts="fused")
    assert files_of(tmp_path / "repaired") == files_of(tmp_path / "hf")


def test_an_output_that_exists(hf: Path, tmp_path: Path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "precious").write_text("data")
    refuse(hf, "output exists", "Choose another output")
    assert (tmp_path / "output" / "precious").read_text() == "data"


def test_an_output_within_the_source(hf: Path):
    before = sorted(path.name for path in hf.iterdir())
    result = invoke("repair", hf, hf / "repaired")
    assert result.exit_code == 2
    assert sorted(path.name for path in hf.iterdir()) == before


def test_a_source_repaired_onto_itself(hf: Path):
    before = files_of(hf)
    assert invoke("repair", hf, hf).exit_code == 2
    assert files_of(hf) == before


def test_a_failure_after_the_first_byte_leaves_nothing(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from internvl_bridge.storage import shard_jobs

    real = shard_jobs.write_file

    def fail(*arguments: Any) -> None:
        real(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_jobs, "write_file", fail)
    before = sorted(path.name for path in tmp_path.iterdir())
    result = invoke("repair", hf, tmp_path / "repaired")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_was_written_is_read_back(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from internvl_bridge.storage import shard_jobs

    real = shard_jobs.write_file

    def spoil(path: Path, *arguments: Any) -> Any:
        written = real(path, *arguments)
        with path.open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)[0]
            file.seek(-1, 2)
            file.write(bytes([last ^ 1]))
        return written

    monkeypatch.setattr(shard_jobs, "write_file", spoil)
    result = invoke("repair", hf, tmp_path / "repaired", "--experts", "fused")
    assert result.exit_code == 1
    assert "not what was read" in result.stderr
    assert not (tmp_path / "repaired").exists()


def test_special_values_pass_untouched(fused: Path, tmp_path: Path):
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-40], dtype=torch.bfloat16)
    key = f"{EXPERTS}.gate_up_proj"
    rewrite(fused, lambda tensors: tensors[key][3, 79, -4:].copy_(odd))
    internvl_bridge.repair(fused, tmp_path / "repaired")
    assert same_bits(load_all(tmp_path / "repaired")[f"{EXPERTS}.3.up_proj.weight"][39, -4:], odd)
    internvl_bridge.repair(tmp_path / "repaired", tmp_path / "again", experts="fused")
    assert same_bits(load_all(tmp_path / "again")[key], load_all(fused)[key])


def test_a_copy_of_a_stored_checkpoint_is_the_same(tmp_path: Path):
    stored(SPLIT, tmp_path / "copy")
    copy_custom(MOE, tmp_path / "custom")
    internvl_bridge.repair(tmp_path / "copy", tmp_path / "repaired")
    assert internvl_bridge.verify(tmp_path / "custom", tmp_path / "repaired").identical
    assert internvl_bridge.verify(tmp_path / "repaired", tmp_path / "custom").identical
