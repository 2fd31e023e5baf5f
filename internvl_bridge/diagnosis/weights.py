"""What only reading the weights shows: damage, and values that no training makes."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.convert.options import Options
from internvl_bridge.diagnosis.findings import Finding
from internvl_bridge.diagnosis.trial import refused
from internvl_bridge.errors import BridgeError, first_few
from internvl_bridge.metadata.sidecar import read_manifest
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.storage.source_shards import Checkpoint
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.work.progress import Progress


@dataclass(frozen=True, slots=True)
class Reading:
    """Whether weights are read, and how: ``workers`` files at a time."""

    deep: bool
    workers: int
    progress: Progress


def findings_in_weights(directory: Path, checkpoint: Checkpoint, reading: Reading) -> Iterator[Finding]:
    """What the bytes of the weights in ``directory`` show, if they are to be read."""
    if not reading.deep:
        return
    if _has_checksums(directory):
        try:
            yield from _damage(directory, reading)
        except BridgeError as error:
            yield refused(error)
    yield from _odd_values(checkpoint, reading)


def _damage(directory: Path, reading: Reading) -> Iterator[Finding]:
    found = verify_checksums(directory, workers=reading.workers, progress=reading.progress)
    place = typed_path(directory)
    if damaged := [*found.changed, *found.missing]:
        yield Finding(
            "wrong",
            f"{first_few(damaged)}: changed since a conversion wrote this directory, damaged, or gone.",
            f"internvl-bridge verify --checksums {place} lists all. Get them again, or make the directory again.",
        )
    if found.unproved:
        yield Finding(
            "wrong",
            f"{first_few(found.unproved)}: no checksum shows whether these weights are as they were written.",
            f"internvl-bridge verify SOURCE {place}",
        )


def typed_options(options: Options) -> str:
    """The options that say where the rest of a directory is, as they are typed."""
    stated = {"--config": options.config, "--base": options.base}
    places = "".join(f" {name} {typed_path(place)}" for name, place in stated.items() if place is not None)
    return places + (f" --state-dict {shlex.quote(options.state_dict)}" if options.state_dict else "")


def not_read(directory: Path, options: Options, reading: Reading) -> Iterator[str]:
    """What remains unknown about the weights."""
    place = typed_path(directory)
    if not reading.deep:
        yield (
            f"Whether the weights are damaged, and whether all their values are numbers. This reads them: "
            f"internvl-bridge doctor {place} --deep{typed_options(options)}"
        )
    elif not _has_checksums(directory):
        yield (
            f"Whether a bit of the weights is damaged: {directory} has no checksums to compare with. Its source, or "
            f"another copy, shows it: internvl-bridge verify SOURCE {place}"
        )


def _has_checksums(directory: Path) -> bool:
    """Whether a conversion has left checksums in ``directory``."""
    try:
        return read_manifest(directory) is not None
    except BridgeError:  # another check says what is wrong with it
        return False


def _odd_values(checkpoint: Checkpoint, reading: Reading) -> Iterator[Finding]:
    from internvl_bridge.verification.odd_values import odd_values  # imports torch  # noqa: PLC0415

    report = reading.progress("Looking at values", checkpoint.data_bytes, len(checkpoint.shards))
    found = odd_values(checkpoint.tensors.items(), reading.workers, report)
    if found.not_finite:
        yield Finding(
            "wrong",
            f"{len(found.not_finite)} tensors hold values that are not finite numbers: {first_few(found.not_finite)}.",
            "Nothing brings the values back: take an earlier checkpoint of the training.",
        )
    if found.zero:
        yield Finding("odd", f"{len(found.zero)} matrices hold nothing but zeros: {first_few(found.zero)}.")
