"""What a conversion did, as values: for programs, for ``--json`` and for the text on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_bridge.checkpoint.inspection import Inspection
from internvl_bridge.convert.moves import AdapterMoves, Moves
from internvl_bridge.reporting.tables import as_html
from internvl_bridge.verification.tensors import Comparison

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection
    from internvl_bridge.convert.computation import Computed


@dataclass(frozen=True, slots=True)
class Linked:
    """Files of weights that are links to files of the source: the ``kind`` of the links, and their names.

    ``unread`` are those of them that have no checksum: nothing has read them, and the source carries none. ``bytes`` is
    what their tensors take.
    """

    kind: str
    files: tuple[str, ...]
    unread: tuple[str, ...]
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """The links as values that :func:`json.dumps` takes."""
        return {"kind": self.kind, "files": list(self.files), "unread": list(self.unread), "bytes": self.bytes}


@dataclass(frozen=True, slots=True, repr=False)
class ConversionReport:
    """The result of :func:`internvl_bridge.to_hf` and the other functions that make a checkpoint or an adapter.

    ``command`` is the command that does the same. ``format`` is the output's, ``found`` what the source turned out to
    be. ``bytes`` counts tensor data, ``cloned`` those bytes that the output shares with the source on disk. ``seconds``
    is the time it took, without planning. ``kept`` names the files that an earlier run had finished. ``files`` were
    written, ``left_behind`` are files of the source that the output's format has no use for. ``warnings`` say what the
    output lacks, or what it computes otherwise than the source; ``notes`` what else deserves attention.
    ``verification`` is None if it was not asked for; a conversion that fails it is never published. ``reference``
    compares the output with the reference's weights, for information. ``fields`` are those of config.json that change
    what a model computes and differ from the reference's, with both values. ``accepted`` names what was accepted.
    ``engines`` are those that serve the output. ``filled`` are the keys of tensors that the source lacked. ``computed``
    is what was computed, None if every byte was moved. ``linked`` are the files that are links, None if none were asked
    for. ``consumed`` names the files of the source that were deleted. ``streamed``: the source was read once, from
    elsewhere. ``by_workers``: other processes wrote the files of weights, which were compared by checksum. ``moves`` is
    what was done with every tensor; :func:`internvl_bridge.save_report` shows it.
    """

    source: Path
    output: Path
    command: str
    format: str
    family: str
    found: "Inspection | AdapterInspection"
    tensors: int
    bytes: int
    cloned: int
    seconds: float
    kept: tuple[str, ...]
    files: tuple[str, ...]
    left_behind: tuple[str, ...]
    fields: Mapping[str, str]
    accepted: tuple[str, ...]
    engines: tuple[str, ...]
    filled: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    verification: Comparison | None
    reference: Comparison | None
    computed: "Computed | None"
    linked: Linked | None
    consumed: tuple[str, ...]
    streamed: bool
    by_workers: bool
    moves: Moves | AdapterMoves

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts.

        A reference may have other weights. It may not have other keys, shapes or dtypes. Its config.json may not
        compute something else, unless "fields" was accepted.
        """
        if self.fields and "fields" not in self.accepted:
            return False
        return self.reference is None or self.reference.complete

    def __repr__(self) -> str:
        return (
            f"ConversionReport(output={str(self.output)!r}, format={self.format!r}, family={self.family!r}, "
            f"tensors={self.tensors}, bytes={self.bytes}, verification={self.verification!r}, "
            f"reference={self.reference!r}, warnings={len(self.warnings)}, notes={len(self.notes)})"
        )

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.convert.conversion_report import conversion_report  # noqa: PLC0415 (it knows this)

        return as_html(conversion_report(self))

    def as_json(self) -> dict[str, Any]:
        """The report as values that :func:`json.dumps` takes."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            "command": self.command,
            "format": self.format,
            "family": self.family,
            "found": self.found.as_json(),
            "tensors": self.tensors,
            "bytes": self.bytes,
            "cloned": self.cloned,
            "seconds": round(self.seconds, 3),
            "kept": list(self.kept),
            "files": list(self.files),
            "left_behind": list(self.left_behind),
            "fields": dict(self.fields),
            "accepted": list(self.accepted),
            "engines": list(self.engines),
            "filled": list(self.filled),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "verification": None if self.verification is None else self.verification.as_json(),
            "reference": None if self.reference is None else self.reference.as_json(),
            "computed": None if self.computed is None else self.computed.as_json(),
            "linked": None if self.linked is None else self.linked.as_json(),
            "consumed": list(self.consumed),
            "streamed": self.streamed,
            "by_workers": self.by_workers,
            "ok": self.ok,
        }
