"""Compare the files of an output with the checksums that were written down when it was made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.kernel_files import check_no_kernel_files
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, Manifest, is_as_written, linked_files, read_manifest
from internvl_bridge.places.fetching import fetched
from internvl_bridge.reporting.tables import as_html
from internvl_bridge.storage.checksums import ALGORITHM, text_checksum
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.work.progress import Advance, Progress, silent
from internvl_bridge.work.workers import check_workers, in_parallel


@dataclass(frozen=True, slots=True, repr=False)
class ChecksumReport:
    """Names of files of ``path``: with their checksum, with another one, gone, and without any that is known.

    ``unknown`` files came later, or are weights that share their data with the source and were never read: their
    conversion was not verified, or they are links. ``linked`` are those of them that are links to files of the source.
    """

    path: str
    equal: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    linked: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether every file that has a checksum is there and has it, and no weights are without one."""
        return not (self.changed or self.missing or self.unproved)

    @property
    def unproved(self) -> tuple[str, ...]:
        """Weights without a checksum: whether they are as they were written, nobody knows."""
        return tuple(name for name in self.unknown if name.endswith(".safetensors"))

    def __repr__(self) -> str:
        return (
            f"ChecksumReport(intact={self.intact}, equal={len(self.equal)}, changed={len(self.changed)}, "
            f"missing={len(self.missing)}, unknown={len(self.unknown)})"
        )

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.verification.checksum_report import checksum_report  # noqa: PLC0415 (it knows this)

        return as_html(checksum_report(self))

    def as_json(self) -> dict[str, Any]:
        """The report as values that :func:`json.dumps` takes."""
        return {
            "path": self.path,
            "intact": self.intact,
            "equal": list(self.equal),
            "changed": list(self.changed),
            "missing": list(self.missing),
            "unknown": list(self.unknown),
            "linked": list(self.linked),
        }


def verify_checksums(
    directory: str | Path, *, workers: int | None = None, progress: Progress = silent
) -> ChecksumReport:
    """Read every file of ``directory``, an output of a conversion, and compare it with its checksum.

    Finds damage without the source.

    Args:
        directory: Directory that a conversion made, or its place on the hub (``hf://owner/name``).
        workers: Files to read at a time. By default one for each core, at most four.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        The names of the files that have their checksum, have another one, are gone, or have none that is known.

    Raises:
        CheckpointError: There are no checksums to compare with, or they are of an unknown kind.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.verify_checksums("my-finetune-HF").intact
        True
    """
    home = fetched(directory).directory
    manifest = _manifest(home)
    known = manifest.files
    written = known.keys() | manifest.weights.keys()  # weights that were never read have no checksum
    there = {path.name for path in home.iterdir() if path.is_file() and not path.name.startswith(".")}
    names = sorted(known.keys() & there)
    report = progress("Reading", sum((home / name).stat().st_size for name in names), len(names))
    found = in_parallel(lambda name, step: _checksum(home / name, step), names, check_workers(workers), report)
    unknown = there - known.keys() - {SIDECAR_FILE}
    changed = {name for name, checksum in zip(names, found, strict=True) if checksum != known[name]}
    if not is_as_written(home, text_checksum):
        changed.add(SIDECAR_FILE)
    return ChecksumReport(
        path=str(directory),
        equal=tuple(name for name in names if name not in changed),
        changed=tuple(sorted(changed)),
        missing=tuple(sorted(written - there)),
        unknown=tuple(sorted(unknown)),
        linked=tuple(sorted(unknown & linked_files(home))),
    )


def _manifest(directory: Path) -> Manifest:
    if not directory.is_dir():
        raise not_a_directory(directory)
    check_no_kernel_files(directory)
    manifest = read_manifest(directory)
    if manifest is None:
        raise CompanionFileError(
            f"{directory / SIDECAR_FILE} is not there, or has no checksums.",
            "Give the output of a conversion; compare other directories with 'internvl-bridge verify LEFT RIGHT'.",
        )
    if manifest.algorithm != ALGORITHM:
        raise CompanionFileError(
            f"{directory / SIDECAR_FILE} has checksums of the kind {manifest.algorithm[:80]!r}, this program knows "
            f"{ALGORITHM}.",
            "Use the version of internvl-bridge that made the directory, or a newer one.",
        )
    return manifest


def _checksum(path: Path, advance: Advance) -> str:
    with FileReader() as readers:
        return file_checksum(path, readers, advance)
