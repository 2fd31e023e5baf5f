"""What the command that compares does: call the library, and answer."""

from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.terminal import DIFFERS, progress_bar
from internvl_bridge.errors import OptionError
from internvl_bridge.pages.checksum_page import checksum_page
from internvl_bridge.pages.comparison_page import comparison_page
from internvl_bridge.places.fetching import fetched
from internvl_bridge.verification.checksum_report import checksum_report
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.verification.comparison_report import comparison_report
from internvl_bridge.verification.directories import verify as verify_checkpoints
from internvl_bridge.verification.sort import Sort


@dataclass(frozen=True, slots=True)
class Comparing:
    """How two checkpoints are compared, and how much of what changed is shown."""

    workers: int | None
    base: Path | None
    ignore_dtype: bool
    top: int
    sort: Sort


def verify(left: Path, right: Path | None, how: Comparing, show: PrintOptions) -> None:
    """Compare two checkpoints, or the files of one with their checksums."""

    def compare_checksums() -> Answer:
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checksums(fetched(left, bars=show.bars).directory, workers=how.workers, progress=progress)
        return Answer(
            "checksums",
            found.as_json,
            lambda: checksum_report(found),
            lambda: checksum_page(found),
            0 if found.intact else DIFFERS,
        )

    def compare_tensors(other: Path) -> Answer:
        one, another = fetched(left, bars=show.bars).directory, fetched(other, bars=show.bars).directory
        if is_adapter_directory(one) and is_adapter_directory(another):
            return _compare_adapters(one, another, how, verbose=show.verbose)
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checkpoints(
                one,
                another,
                workers=how.workers,
                ignore_dtype=how.ignore_dtype,
                distributions=show.report is not None,
                progress=progress,
            )
        return Answer(
            "comparison",
            found.as_json,
            lambda: comparison_report(found, top=how.top, sort=how.sort, every=show.verbose),
            lambda: comparison_page(found, str(left), str(other)),
            0 if found.identical else DIFFERS,
        )

    answer("verify", compare_checksums if right is None else lambda: compare_tensors(right), show)


def _compare_adapters(left: Path, right: Path, how: Comparing, *, verbose: bool) -> Answer:
    if how.ignore_dtype:
        raise OptionError(
            "Adapters are compared by what they do to the weights, whatever their dtypes.", "Leave out --ignore-dtype."
        )
    # They import torch.
    from internvl_bridge.pages.adapter_comparison_page import adapter_comparison_page  # noqa: PLC0415
    from internvl_bridge.verification.adapter_comparison_report import adapter_comparison_report  # noqa: PLC0415
    from internvl_bridge.verification.adapters import verify_adapters  # noqa: PLC0415

    found = verify_adapters(left, right, base=how.base)
    return Answer(
        "adapter_comparison",
        found.as_json,
        lambda: adapter_comparison_report(found, how.top, how.sort, every=verbose),
        lambda: adapter_comparison_page(found, str(left), str(right)),
        0 if found.identical else DIFFERS,
    )
