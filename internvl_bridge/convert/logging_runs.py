"""What the log says of a run: that it begins, what it warns of, and that its output is complete."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.work.log import LOG

if TYPE_CHECKING:
    from internvl_bridge.convert.adapters import AdapterConversion


def log_begin(conversion: "Conversion | AdapterConversion") -> None:
    """Say what begins, and what it warns of."""
    source = conversion.inputs[0]
    LOG.info(
        "%s: %s into %s, %d bytes of tensors", conversion.command, source, conversion.output, conversion.data_bytes
    )
    for warning in conversion.warnings:
        LOG.warning("%s: %s", conversion.output, warning)


def log_end(conversion: "Conversion | AdapterConversion", seconds: float, warnings: Iterable[str] = ()) -> None:
    """Say that the output is complete, and what only its bytes have shown."""
    for warning in warnings:
        LOG.warning("%s: %s", conversion.output, warning)
    verified = "verified" if conversion.execution.verify else "not verified"
    LOG.info("%s: %s is complete and %s, after %.1f s", conversion.command, conversion.output, verified, seconds)
