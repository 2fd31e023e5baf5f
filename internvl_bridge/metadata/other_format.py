"""What is known about a model in the other format: from the sidecar of a conversion, or from a reference model."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.errors import BridgeError, CompanionFileError, OptionError, shown
from internvl_bridge.mapping.families import family_named
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.family import hf_family
from internvl_bridge.metadata.config.unsupported import check_expressible
from internvl_bridge.metadata.files import TOKENIZER_CONFIG_FILE, digest, is_text_name, present
from internvl_bridge.metadata.json_files import CONFIG_FILE, JsonFile, is_present, parse_shallow_object, read_json_file
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES, PREPROCESSOR_FILE
from internvl_bridge.metadata.sidecar import OF_EVERY_OUTPUT, SIDECAR_FILE, VERSION, unusable
from internvl_bridge.notes import Warn


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """How the other format describes this model, and its files, verbatim, by name.

    ``origin`` is the file or directory it was read from. ``written`` are the digests of the files that were made
    from those: one that still has its digest has not been touched since. ``head`` says what its output head was
    ("own", "shared" or "copy"), None if that is not known. A reference model gives its config.json and its processor,
    and leaves the rest to a sidecar.
    """

    origin: Path
    files: Mapping[str, str]
    description: ModelDescription
    written: Mapping[str, str]
    head: str | None = None
    is_reference: bool = False

    def restored(
        self, directory: Path, names: Collection[str], translated: Collection[str] = ()
    ) -> dict[str, str] | None:
        """The files ``names`` as they were, if what was made from them in ``directory`` is untouched.

        None if one of those was changed, removed or added since, or if none was made. ``translated`` are those of
        ``names`` that no conversion carries over as they are.
        """
        made = self.written.keys() & set(names)
        if not made or any(digest(directory / name) != self.written.get(name) for name in made | set(translated)):
            return None
        return {name: text for name, text in self.files.items() if name in names}


def read_sidecar(directory: Path, wanted: Format) -> OtherFormat | None:
    """What the sidecar of ``directory`` says about the format ``wanted``; None without a sidecar, or about another one.

    Raises a BridgeError if there is one that is malformed, of another version, or contradicts itself.
    """
    path = directory / SIDECAR_FILE
    if not is_present(path):
        return None
    contents = _contents(path)
    if contents.keys() <= {"version", *OF_EVERY_OUTPUT}:  # of a repair: it has nothing about another format
        return None
    match contents:
        case {
            "source_format": str(format_),
            "family": str(family),
            "files": {"config.json": str(), **others},
            "written": dict(),
        }:
            files, written = contents["files"], contents["written"]
        case _:
            raise unusable(path, "it lacks its source_format, family, files or written")
    _check_files(path, files, (*others.values(), *written.values()))
    if format_ not in {format_.value for format_ in Format}:
        raise unusable(path, f"it describes the unknown format {shown(format_)}")
    if format_ != wanted.value:
        return None
    read = {
        TOKENIZER_CONFIG_FILE,
        GENERATION_FILE,
        *(HF_PROCESSOR_FILES if wanted is Format.HF else [PREPROCESSOR_FILE]),
    }
    for name in files.keys() & read:
        _parsed(path, name, files[name])
    config = JsonFile(path, files[CONFIG_FILE], _parsed(path, CONFIG_FILE, files[CONFIG_FILE]))
    head = contents.get("head")
    return OtherFormat(
        path, files, _described(config, wanted, family), written, head if isinstance(head, str) else None
    )


def _contents(path: Path) -> Mapping[str, Any]:
    """What the sidecar ``path`` holds, of the version that this program knows."""
    try:
        contents = read_json_file(path).values
    except CompanionFileError as error:
        raise unusable(path, error.reason.partition("cannot be used: ")[2].removesuffix(".")) from error
    if type(contents.get("version")) is not int or contents["version"] != VERSION:
        raise unusable(path, f"it has version {contents.get('version')!r}, this program knows {VERSION}")
    return contents


def reference_as_other_format(
    config: JsonFile, wanted: Format, keys: Iterable[str], sidecar: OtherFormat | None = None
) -> OtherFormat:
    """What a reference model says: its config.json, and the family of its ``keys``.

    What else a ``sidecar`` of the same family keeps is still restored. Raises a BridgeError unless the reference is of
    the format ``wanted``.
    """
    description = describe(config, keys)
    if description.format is not wanted:
        raise OptionError(
            f"The reference {config.path.parent} is not in the {wanted.value} format, which the output will have.",
            "Give the directory of a model in the output's format.",
        )
    check_expressible(description)
    home = config.path.parent
    files = {path.name: read_json_file(path).text for path in present(home, HF_PROCESSOR_FILES)}
    kept, written, head = {}, {}, None
    if sidecar is not None and sidecar.description.family.hf_model_type == description.family.hf_model_type:
        kept, written, head = dict(sidecar.files), dict(sidecar.written), sidecar.head
    return OtherFormat(home, {**kept, **files, CONFIG_FILE: config.text}, description, written, head, is_reference=True)


def usable_sidecar(hf: JsonFile) -> tuple[OtherFormat | None, tuple[str, ...]]:
    """What the sidecar next to the config.json ``hf`` says; None, and a note with the reason, if it is unusable."""
    path = hf.path.parent / SIDECAR_FILE
    try:
        other_format = read_sidecar(path.parent, Format.CUSTOM)
        if other_format is not None:
            hf_family(hf, other_format.description.family)
            return other_format, ()
        is_for_hf = path.exists() and "source_format" in read_json_file(path).values
        reason = f"{path} describes an HF checkpoint, which this is itself." if is_for_hf else None
    except BridgeError as error:
        reason = error.reason
    if reason is None:
        return None, ()
    return None, (Warn(f"The sidecar is left behind: {reason.replace(str(path), path.name)}"),)


def _check_files(path: Path, files: Mapping[str, object], values: Iterable[object]) -> None:
    if not all(isinstance(text, str) for text in values):
        raise unusable(path, "its files are not texts")
    if foreign := [name for name in files if not is_text_name(name) or name == SIDECAR_FILE]:
        raise unusable(path, f"it holds {shown(foreign[0])}, which is not the name of a text file")


def _parsed(path: Path, name: str, text: str) -> dict[str, Any]:
    return parse_shallow_object(text.encode(errors="replace"), lambda why: unusable(path, f"the {name} in it is {why}"))


def _described(config: JsonFile, wanted: Format, recorded: str) -> ModelDescription:
    """The config in a sidecar, which must be of the family that the sidecar records."""
    family = family_named(recorded)
    if family is None:
        raise unusable(config.path, f"it records the unknown family {recorded[:80]!r}")
    try:
        description = describe(config, other_family=family)
        check_expressible(description)
    except BridgeError as error:
        raise unusable(config.path, f"the config.json in it is refused: {error.reason.removesuffix('.')}") from error
    if description.format is not wanted:
        raise unusable(config.path, f"its config.json is not of the {wanted.value} format")
    if description.family.architecture != family.architecture:
        raise unusable(
            config.path, f"it records the family {family.name}, but its config.json is of {description.family.name}"
        )
    return replace(description, family=family)
