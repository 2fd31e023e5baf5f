"""The sidecar ``internvl_bridge.json``: what the output's format cannot hold, kept for the way back."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.files import text_digest
from internvl_bridge.metadata.json_files import LARGEST_JSON, is_present, read_json_file

SIDECAR_FILE = "internvl_bridge.json"

VERSION = 2
CHECKSUMS, RECORD, OWN_CHECKSUM = OF_EVERY_OUTPUT = ("checksums", "conversion", "checksum")
"""What every output's sidecar has: the checksums of its files, how they were made, and its own checksum."""
LINKED = "linked"
"""What the record of a conversion calls files that are links."""
_MOST_OF_REST, _MOST_OF_TENSOR = 1 << 20, 64
"""Bytes that the record and the checksums of files may take, and those of a tensor, beside its key."""


def sidecar_contents(
    format_: Format,
    family: str,
    kept: Mapping[str, str],
    written: Mapping[str, str],
    head: str | None = None,
    tensors: Iterable[str] = (),
) -> dict[str, Any]:
    """The contents of the sidecar for a conversion of a source of format ``format_``, whose output head is ``head``.

    ``kept`` are texts of files of the source, by name: those that the output does not have as they are. ``written`` are
    the texts of those that the output has instead. ``tensors`` are the keys of the output. Raises CompanionFileError if
    the texts are larger than a sidecar that would be read.
    """
    room = _MOST_OF_REST + sum(len(key.encode()) + _MOST_OF_TENSOR for key in tensors)
    contents = {
        "version": VERSION,
        "source_format": format_.value,
        "family": family,
        "head": head,
        "files": dict(kept),
        "written": {name: text_digest(text) for name, text in sorted(written.items())},
    }
    if len(_text(contents).encode()) > LARGEST_JSON - room:
        largest = max(kept, key=lambda name: len(kept[name]))
        raise CompanionFileError(
            f"The source's texts, of which {largest} is the largest, are too large for the sidecar.",
            f"Remove what does not belong to the model from {largest}.",
        )
    return contents


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """What a file of weights was when it was written: its size in bytes, and the checksums of its header and tensors.

    Tensors whose bytes no pass has seen have none.
    """

    size: int
    header: str
    tensors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The checksums that an output carries, by name: of its files, and of what is in its files of weights."""

    algorithm: str
    files: Mapping[str, str]
    weights: Mapping[str, WeightsRecord] = field(default_factory=dict)


def sidecar_text(contents: Mapping[str, Any], manifest: Manifest, own_checksum: Callable[[str], str]) -> str:
    """The sidecar with these ``contents``, as it is written, with the checksums of all files.

    The last is that of its own text without it, which ``own_checksum`` gives.
    """
    weights = {name: asdict(record) for name, record in sorted(manifest.weights.items())}
    checksums = {"algorithm": manifest.algorithm, "files": dict(sorted(manifest.files.items())), "weights": weights}
    values = {"version": VERSION, **contents, CHECKSUMS: checksums}
    text = _text(values)
    own = json.dumps(own_checksum(text), ensure_ascii=False)
    return f'{text.removesuffix(_END)},\n  "{OWN_CHECKSUM}": {own}{_END}'


def is_as_written(directory: Path, own_checksum: Callable[[str], str]) -> bool:
    """Whether the sidecar in ``directory``, which must be there, says what it said when it was written.

    One that states no checksum of its own is taken as it is.
    """
    values = dict(read_json_file(directory / SIDECAR_FILE).values)
    stated = values.pop(OWN_CHECKSUM, None)
    return stated is None or stated == own_checksum(_text(values))


_END = "\n}\n"


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def repaired_contents(directory: Path) -> dict[str, Any]:
    """What a repair hands on of the sidecar in ``directory``: all that the way back needs.

    The sidecar must be there and usable.
    """
    contents = read_json_file(directory / SIDECAR_FILE).values
    return {name: value for name, value in contents.items() if name not in OF_EVERY_OUTPUT}


def read_manifest(directory: Path) -> Manifest | None:
    """The checksums that the sidecar in ``directory`` states; None without one or without any.

    Raises CompanionFileError if they are malformed.
    """
    path = directory / SIDECAR_FILE
    stated = read_json_file(path).values.get(CHECKSUMS) if is_present(path) else None
    match stated:
        case None:
            return None
        case {"algorithm": str(algorithm), "files": dict(files), **others} if all(
            isinstance(text, str) and _is_file_name(name) for name, text in files.items()
        ):
            return Manifest(algorithm, files, _weights_records(path, others.get("weights", {})))
        case _:
            raise unusable(path, "its checksums are not a map of file names to texts")


def linked_files(directory: Path) -> frozenset[str]:
    """The names of the files of ``directory`` that its sidecar says are links to files of the source."""
    record = read_json_file(directory / SIDECAR_FILE).values.get(RECORD)
    linked = record.get(LINKED) if isinstance(record, dict) else None
    return frozenset(linked if isinstance(linked, dict) else ())


def _weights_records(path: Path, stated: object) -> dict[str, WeightsRecord]:
    records: dict[str, WeightsRecord] = {}
    for name, record in stated.items() if isinstance(stated, dict) else [("", None)]:
        match record:
            case {"size": int(size), "header": str(header), "tensors": dict(tensors)} if all(
                isinstance(text, str) for text in tensors.values()
            ):
                records[name] = WeightsRecord(size, header, tensors)
            case _:
                raise unusable(path, "its checksums of weights are not sizes and maps of keys to texts")
    return records


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in {"", ".."} and "\0" not in name


def unusable(path: Path, reason: str) -> CompanionFileError:
    """The refusal of the sidecar ``path``."""
    return CompanionFileError(
        f"{path} cannot be used: {reason}.",
        "Remove it to convert without it; what only it knows is then filled in with defaults.",
    )
