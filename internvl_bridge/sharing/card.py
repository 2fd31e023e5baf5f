"""The model card of an output, from what its sidecar remembers."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.metadata.json_files import is_present, read_json_file
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.metadata.sidecar import RECORD, SIDECAR_FILE, Manifest, read_manifest
from internvl_bridge.places.names import HubName, hub_name
from internvl_bridge.reporting.sizes import human_size

CARD_FILE = "README.md"
_CARRIED = ("license", "license_name", "license_link", "base_model", "language", "datasets", "tags")
"""What the source's own card states of it, and what holds for the output, too."""
_COMPUTES = ("merge", "cast")
_SNIPPETS = {
    "hf": "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
    'model = AutoModelForImageTextToText.from_pretrained("{name}", dtype="auto")\n'
    'processor = AutoProcessor.from_pretrained("{name}")',
    "custom": "import internvl_bridge\n\n"
    'model = internvl_bridge.load_pretrained("{name}", dtype="auto")\n'
    'processor = internvl_bridge.load_processor("{name}")',
}


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size: str
    checksum: str | None


def model_card(output: str | Path, *, name: str | None = None) -> str:
    """The model card of ``output``, a directory that a conversion made: the text of its README.md on the hub.

    It has the licence and the base model of the source, and how the output was made. It also has the command that makes
    it again, and the checksums of its files.

    Args:
        output: Directory that a conversion made.
        name: What the output is called on the hub, "owner/name". By default the name of the directory.

    Returns:
        The text, with the metadata that the hub reads.

    Raises:
        CheckpointError: ``output`` has no sidecar that says how it was made, or is not a directory.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.model_card("my-finetune-HF").splitlines()[0]
        '---'
    """
    home = Path(output)
    if not home.is_dir():
        raise not_a_directory(home)
    called = name or home.absolute().name
    sidecar = read_json_file(home / SIDECAR_FILE).values if is_present(home / SIDECAR_FILE) else {}
    record, manifest = sidecar.get(RECORD), read_manifest(home)
    if not isinstance(record, dict) or manifest is None:
        raise CompanionFileError(
            f"{home / SIDECAR_FILE} is not there, or does not say how the output was made.",
            "Give the output of a conversion by this version of internvl-bridge.",
        )
    is_adapter = is_present(home / ADAPTER_CONFIG)
    format_ = None if is_adapter else detect_format(read_config(home)).value
    card = _TEMPLATES.get_template("card.md").render(
        name=called,
        what=_what(record, sidecar.get("family"), format_),
        how=_how(record),
        snippet=None if format_ is None else _SNIPPETS[format_].format(name=called),
        command=_command(record, called),
        warnings=[_one_line(warning) for warning in record.get("warnings", ())],
        algorithm=manifest.algorithm,
        files=_files(home, manifest),
    )
    metadata = _metadata(home, record, sidecar, is_adapter=is_adapter)
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n\n{card.strip()}\n"


_TEMPLATES = Environment(
    loader=PackageLoader("internvl_bridge.sharing"),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701 (Markdown)
)


def _metadata(home: Path, record: Mapping[str, Any], sidecar: Mapping[str, Any], *, is_adapter: bool) -> dict[str, Any]:
    """The YAML in front of a card, https://huggingface.co/docs/hub/model-cards."""
    stated = _front_matter(_source_card(home, sidecar))
    metadata = {field: stated[field] for field in _CARRIED if field in stated}
    origin = _origin(record)
    if is_adapter:
        base = read_json_file(home / ADAPTER_CONFIG).values.get("base_model_name_or_path")
        if isinstance(base, str) and hub_name(f"hf://{base}") is not None:
            metadata["base_model"] = base
    elif origin is not None:
        metadata["base_model"] = [origin.repository]
    tags = metadata.get("tags")
    metadata["tags"] = [*dict.fromkeys([*(tags if isinstance(tags, list) else []), "internvl", "internvl-bridge"])]
    metadata["library_name"] = "peft" if is_adapter else "transformers"
    metadata["pipeline_tag"] = "image-text-to-text"
    return metadata


def _source_card(home: Path, sidecar: Mapping[str, Any]) -> object:
    """The card of the source: kept in the sidecar, or carried along where the output has the same format."""
    files = sidecar.get("files")
    if isinstance(files, dict) and CARD_FILE in files:
        return files[CARD_FILE]
    return (home / CARD_FILE).read_text(encoding="utf-8", errors="replace") if is_present(home / CARD_FILE) else None


def _front_matter(card: object) -> dict[str, Any]:
    """What the card of the source states, as far as it is texts; nothing if it has none, or none that can be read."""
    text = card.replace("\r\n", "\n") if isinstance(card, str) else ""
    if not text.startswith("---\n") or (end := text.find("\n---", 4)) < 0:
        return {}
    try:
        found = yaml.safe_load(text[4:end])
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # a date that cannot be
        return {}
    return {key: value for key, value in found.items() if _is_plain(value)} if isinstance(found, dict) else {}


def _is_plain(value: object) -> bool:
    return all(isinstance(item, str) for item in (value if isinstance(value, list) else [value]))


def _one_line(text: object) -> str:
    """``text`` without what Markdown makes headings, tables or code of."""
    return re.sub(r"([`|<>*_#\[\]])", r"\\\1", " ".join(str(text).split()))


def _origin(record: Mapping[str, Any]) -> HubName | None:
    source = record.get("source")
    return hub_name(source) if isinstance(source, str) else None


def _what(record: Mapping[str, Any], family: object, format_: str | None) -> str:
    origin = _origin(record)
    source = "a checkpoint"
    if origin is not None:
        address = f"https://huggingface.co/{origin.repository}"
        source = f"[{origin.repository}]({address}) at commit `{origin.revision}`"
    if format_ is None:
        return f"An adapter, made of {source}."
    told = {"hf": "the format of transformers (HF)", "custom": "the custom format of InternVL's own code"}[format_]
    return f"Made of {source}, in {told}{f', with {family} as language model' if family else ''}."


def _how(record: Mapping[str, Any]) -> str:
    program = record.get("program", "internvl-bridge")
    if record.get("command") in _COMPUTES:
        return f"{program} computed its weights (`{record['command']}`), and read them back."
    return f"{program} moved every tensor bit for bit, read the files back, and compared them with the source."


def _command(record: Mapping[str, Any], name: str) -> str:
    words = ["internvl-bridge", str(record.get("command", "to-hf")), str(record.get("source", "SOURCE"))]
    words.append(name.rpartition("/")[2])
    options = record.get("options")
    for option, value in options.items() if isinstance(options, dict) else ():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{'adapter' if option == 'adapters' else option.replace('_', '-')}", str(one)]
    for accepted in record.get("accepted", ()):
        words += ["--accept", str(accepted)]
    return shlex.join(words)


def _files(home: Path, manifest: Manifest) -> list[_File]:
    known = manifest.files
    found = sorted(path for path in home.iterdir() if path.name in known and path.name != CARD_FILE)
    return [_File(path.name, human_size(path.stat().st_size), known.get(path.name)) for path in found]
