"""Ask before a source is deleted."""

import sys

import typer

from internvl_bridge.cli.answers import PrintOptions
from internvl_bridge.cli.terminal import warn
from internvl_bridge.convert.consumable import consumable
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.errors import OptionError
from internvl_bridge.reporting.sizes import human_size


def confirm_consuming(conversion: Conversion, show: PrintOptions) -> None:
    """Ask whether the source shall be deleted. Raises OptionError unless somebody says yes."""
    files = [shard for shard in consumable(conversion.model, conversion.shards) if not shard.is_absent]
    size = human_size(sum(shard.stamp.size for shard in files))
    what = f"--consume deletes {len(files)} file(s) of weights ({size}) in {conversion.model.source.weights}"
    if show.as_json or not has_terminal():
        raise OptionError(f"{what}, and there is no terminal to ask.", "Add --yes if that is meant.")
    warn(f"{what}, each when {conversion.output} has its tensors, read back and compared.")
    if not typer.confirm("Go on?", err=True):
        raise OptionError(f"{what}, and the answer was no.", "Nothing was done. Convert without --consume.")


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
