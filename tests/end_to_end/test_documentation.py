"""docs/directories.md says what the code does, of every field and every file."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import NAMES, ROOT, copy_custom

import internvl_bridge
from internvl_bridge.mapping.families import FAMILIES
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS

PAGE = ROOT / "docs" / "directories.md"
Custom = Callable[[str], Path]


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table under ``heading``."""
    text = PAGE.read_text()
    section = text[text.index(f"\n{heading}\n") :]
    table = re.search(r"\n\|---[-|]*\n((?:\|.*\n)+)", section)
    assert table is not None
    for line in table[1].splitlines():
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cell: str) -> set[str]:
    return set(re.findall("`([^`]+)`", cell))


def pairs(heading: str) -> set[tuple[str, str]]:
    return {(ours, theirs) for custom, hf, *_ in rows(heading) for ours in names(custom) for theirs in names(hf)}


def hf_names(heading: str) -> set[str]:
    return {name for _, hf, *_ in rows(heading) for name in names(hf)}


def custom_only(heading: str) -> set[str]:
    return {name for custom, hf, *_ in rows(heading) if hf == "-" for name in names(custom)}


def test_every_field_of_the_code_is_in_its_table_and_every_pair_of_the_tables_in_the_code():
    of_text = {(field.custom, field.hf) for family in FAMILIES for field in family.fields}
    said_apart = {
        ("architectures", "model_type"),
        ("architectures", "architectures"),
        ("tie_word_embeddings", "tie_word_embeddings"),
        ("num_experts", "num_local_experts"),
        *((name, "rope_parameters") for name in ("rope_theta", "rope_scaling", "partial_rotary_factor")),
    }
    assert pairs("### llm_config and text_config") == of_text | said_apart
    of_vision = {(field.custom, field.hf) for field in VISION_FIELDS}
    assert pairs("### vision_config") == of_vision | {("dropout", "projection_dropout"), ("model_type", "model_type")}
    assert {(field.custom, field.hf) for field in TOP_FIELDS} <= pairs("### At the top")


def test_each_family_has_the_fields_that_the_table_gives_it():
    for family in FAMILIES:
        fields = {(f.custom, f.hf) for f in family.fields}
        name = family.name.partition(" ")[0]
        for custom, hf, models in rows("### llm_config and text_config"):
            ours = {pair for pair in fields if pair[0] in names(custom) and pair[1] in names(hf)}
            given = re.split(r"[;:] ?", models)[0]
            if given != "all":
                listed = name in given.split(", ") or (given.startswith("all but") and name not in given)
                assert bool(ours) == listed, (family.name, custom, models)


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_config_has_documented_fields_and_no_other(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    vision, text = config.pop("vision_config"), config.pop("text_config")
    for values, heading in (
        (config, "### At the top"),
        (vision, "### vision_config"),
        (text, "### llm_config and text_config"),
    ):
        assert values.keys() <= hf_names(heading)
        assert values.keys().isdisjoint(custom_only(heading) - hf_names(heading))


def write_every_file(directory: Path) -> Path:
    """Put something into every file that the page speaks of and the checkpoint lacks."""
    for name in ("LICENSE", "LICENSE.txt", "NOTICE", "modeling.py", "README.md", "notes.txt", "run.yaml"):
        (directory / name).write_text(f"# {name}\n")
    (directory / "events.bin").write_bytes(b"\xff\x00")
    (directory / "chat_template.jinja").write_text("{{ messages[0]['content'] }}<image>")
    return directory


def fate(name: str, source: Path, output: Path) -> str:
    """What became of a file, by looking at the output."""
    sidecar = json.loads((output / "internvl_bridge.json").read_text())
    there = (output / name).is_file()
    if not (source / name).is_file():
        return "made" if there else "absent"
    if there and (output / name).read_bytes() == (source / name).read_bytes() and name not in sidecar["files"]:
        return "copied"
    if name.endswith(".safetensors"):
        return "translated" if there else "left behind"
    if name in sidecar["files"]:
        assert sidecar["files"][name].encode() == (source / name).read_bytes()
        return "translated" if there or name.startswith("chat_template") else "kept"
    return "left behind"


def documented(heading: str) -> dict[str, str]:
    """The fate of each file that a table names, by name."""
    fates = {}
    for files, becomes, *_ in rows(heading):
        for name in names(files) or {files}:
            fates[name] = becomes
    return fates


def test_every_file_of_a_custom_checkpoint_becomes_what_the_page_says(custom: Custom, tmp_path: Path):
    source = write_every_file(custom("qwen2-300m"))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    said = documented("### custom to HF")
    aliases = {"model.safetensors": "model*.safetensors", "modeling.py": "*.py"}
    aliases |= {"notes.txt": ".txt", "run.yaml": ".yaml"}
    for path in sorted({*source.iterdir(), *(tmp_path / "hf").iterdir()}):
        if path.name in {"internvl_bridge.json", "events.bin"}:
            continue
        assert fate(path.name, source, tmp_path / "hf") == said[aliases.get(path.name, path.name)], path.name
    assert report.left_behind == ("events.bin",)


def test_every_file_of_an_hf_checkpoint_becomes_what_the_page_says(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    source = write_every_file(tmp_path / "hf")
    (source / "modeling.py").unlink()
    report = internvl_bridge.to_custom(source, tmp_path / "custom")
    said = documented("### HF to custom")
    aliases = {"model.safetensors": "model*.safetensors", "notes.txt": "README.md", "run.yaml": "README.md"}
    for path in sorted(source.iterdir()):
        if path.name == "events.bin":
            continue
        assert fate(path.name, source, tmp_path / "custom") == said[aliases.get(path.name, path.name)], path.name
    assert report.left_behind == ("events.bin",)
    made = {path.name for path in (tmp_path / "custom").iterdir()} - {path.name for path in source.iterdir()}
    assert made == {"internvl_bridge.json"}
