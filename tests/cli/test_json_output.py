"""Whatever the command and however it ends, ``--json`` prints one object, as docs/json-output.schema.json has it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.injecting import once
from jsonschema import Draft202012Validator
from support import DATA, ROOT, copy_custom, rewrite
from typer.testing import CliRunner
from wrapped import save_as_trainer

import internvl_bridge
from internvl_bridge.cli import describing
from internvl_bridge.cli.app import app
from internvl_bridge.convert import disk_budget

BRIDGE = [sys.executable, "-m", "internvl_bridge"]
SCHEMA = json.loads((ROOT / "docs" / "json-output.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


def printed(*arguments: object, code: int = 0) -> dict[str, Any]:
    """What a command prints, which ends with ``code``; stderr has the error, too."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    document = json.loads(result.stdout)
    VALIDATOR.validate(document)
    assert (result.exit_code, document["exit_code"], document["command"]) == (code, code, arguments[0])
    if document["error"]:
        assert result.stderr.rstrip("\n").removeprefix("Error: ") == document["error"]["message"]
    return document


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_custom("qwen3-300m", tmp_path / "source")


@pytest.fixture
def hf(source: Path, tmp_path: Path) -> Path:
    internvl_bridge.to_hf(source, tmp_path / "hf")
    return tmp_path / "hf"


def test_every_kind_of_result_has_its_definition():
    parts = [(rule["if"]["properties"]["kind"], rule["then"]["properties"]) for rule in SCHEMA["allOf"]]
    rules = {kind["const"]: then["result"] for kind, then in parts}
    kinds = SCHEMA["properties"]["kind"]["enum"]
    assert rules == {kind: {"$ref": f"#/$defs/{kind}"} if kind else {"type": "null"} for kind in kinds}
    assert len(parts) == len(kinds)


def test_a_conversion(source: Path, hf: Path, tmp_path: Path):
    document = printed("to-hf", source, tmp_path / "output", "--reference", hf)
    assert document["kind"] == "conversion"
    assert len(document["result"]["verification"]["tensors"]) == 71
    assert document["result"]["reference"]["identical"] is True


def test_warnings_are_on_stderr_and_in_the_result(tmp_path: Path):
    arguments = ["repair", str(DATA / "hf" / "qwen2-300m@state-dict"), str(tmp_path / "output"), "--json"]
    result = CliRunner().invoke(app, arguments)
    document = json.loads(result.stdout)
    VALIDATOR.validate(document)
    assert result.stderr.splitlines() == [f"Warning: {warning}" for warning in document["result"]["warnings"]]
    assert document["result"]["warnings"]


@pytest.mark.parametrize("arguments", [["plan"], ["to-hf", "--dry-run"]])
def test_a_plan(arguments: list[str], source: Path, tmp_path: Path):
    document = printed(*arguments, source, tmp_path / "output")
    assert (document["kind"], document["error"]) == ("plan", None)


def test_a_plan_that_does_not_fit_has_a_result_and_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(disk_budget, "free_bytes", lambda _: 1000)
    document = printed("plan", source, tmp_path / "output", code=2)
    assert document["result"]["budget"]["fits"] is False
    assert document["error"]["kind"] == "OutputError"


def test_what_is_computed(source: Path, tmp_path: Path):
    save_as_trainer(source, tmp_path / "trained")
    merged = printed("merge", tmp_path / "trained", tmp_path / "merged", "--dtype", "float16")
    assert merged["kind"] == "conversion"
    assert merged["result"]["computed"]["modules"]["vision_model.encoder.layers.0.attn.qkv"] == [2.0]
    assert [*merged["result"]["computed"]["roundings"]] == ["language model", "projector", "vision tower"]
    planned = printed("cast", source, tmp_path / "cast", "--dtype", "float32", "--dry-run")
    assert (planned["kind"], len(planned["result"]["computed"])) == ("plan", len(planned["result"]["plan"]))
    assert printed("extract", tmp_path / "trained", tmp_path / "parts", "--dry-run")["kind"] == "extraction_plan"
    extracted = printed("extract", tmp_path / "trained", tmp_path / "parts")
    assert (extracted["kind"], extracted["result"]["adapter"]["computed"]) == ("extraction", None)


def test_models():
    assert printed("models")["kind"] == "models"


def test_a_comparison_has_words_where_json_has_no_number(source: Path, hf: Path):
    assert printed("verify", source, hf)["result"]["identical"] is True
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"][2:3].fill_(float("nan")))
    rewrite(source, lambda tensors: tensors.pop("mlp1.0.weight"))
    document = printed("verify", source, hf, code=1)
    assert (document["kind"], document["error"], document["result"]["l2"]) == ("comparison", None, "nan")


def test_checksums(hf: Path):
    assert printed("verify", "--checksums", hf)["kind"] == "checksums"
    (hf / "config.json").write_text("{}")
    assert printed("verify", "--checksums", hf, code=1)["result"]["changed"] == ["config.json"]


def test_what_was_left_unfinished(source: Path, tmp_path: Path):
    def stop(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        internvl_bridge.to_hf(source, tmp_path / "output", max_shard_size="100KB", progress=once(stop, 0.8))
    (left,) = printed("clean", tmp_path)["result"]["abandoned"]
    assert (left["directory"], left["removed"]) == (f"{tmp_path}/output.partial", False)
    assert printed("clean", tmp_path, "--yes")["result"]["abandoned"] == [{**left, "removed": True}]


@pytest.mark.parametrize("name", ["custom/qwen3moe-6b", "hf/qwen3-300m-tied@5.4.0"])
def test_an_inspection(name: str):
    assert printed("inspect", DATA / name)["kind"] == "inspection"


def test_an_inspection_of_what_cannot_be_converted(source: Path):
    rewrite(source, lambda tensors: tensors.pop("mlp1.0.bias"))
    assert "mlp1.0.bias" in printed("inspect", source)["result"]["refusal"]


def test_a_refusal(tmp_path: Path):
    document = printed("to-custom", tmp_path / "nowhere", tmp_path / "output", code=2)
    error = document["error"]
    assert (error["kind"], document["kind"], document["result"]) == ("CheckpointError", None, None)
    assert error["message"].endswith(error["remedy"])


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [(OSError, 2, "OSError"), (KeyboardInterrupt, 130, "Interrupted"), (KeyError, 2, "Defect")],
)
def test_what_ends_a_command_from_outside(
    error: type[BaseException], code: int, kind: str, source: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(_path: Path, **_: object) -> None:
        raise error

    monkeypatch.setattr(describing, "inspect_checkpoint", failing)
    assert printed("inspect", source, code=code)["error"]["kind"] == kind


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["to-hf", "a"], "to-hf"),
        (["frobnicate"], None),
        (["verify", "a", "b", "--x"], "verify"),
        (["verify", "a"], "verify"),
    ],
)
def test_wrong_usage(arguments: list[str], command: str | None):
    done = subprocess.run([*BRIDGE, *arguments, "--json"], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    VALIDATOR.validate(document)
    assert (done.returncode, document["exit_code"], document["command"]) == (2, 2, command)
    assert document["error"]["message"] in " ".join(done.stderr.split())


def test_the_exit_code_of_a_program_that_prints_json(source: Path, hf: Path):
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"].add_(1))
    command = [*BRIDGE, "verify", str(source), str(hf), "--json"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_every_field_is_described():
    fields = [*properties(SCHEMA)]
    assert len(fields) > 60
    assert [name for name, field in fields if not field.get("description", "").endswith(".")] == []


def properties(schema: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of all objects, however deep, but for the conditions about them."""
    match schema:
        case {"additionalProperties": False, "properties": dict(fields)}:
            yield from fields.items()
    values = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for name, value in values:
        if name != "allOf":
            yield from properties(value)


def test_a_diagnosis(source: Path):
    assert printed("doctor", source)["result"]["healthy"] is True
    (source / "generation_config.json").write_text("{")
    document = printed("doctor", source, "--deep", code=1)
    assert document["kind"] == "diagnosis"
    assert document["result"]["findings"][0]["severity"] == "wrong"


def test_a_load_check(source: Path, hf: Path):
    document = printed("check-load", hf, "--against", source)
    assert document["kind"] == "load_check"
    assert document["result"]["against"]["largest"] == 0
    assert printed("check-load", source, "--meta")["result"]["prompted"] is None
