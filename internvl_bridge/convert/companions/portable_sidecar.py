"""The sidecar of an HF directory, which a repair hands on: the way back to the custom format needs it."""

from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.family import hf_family
from internvl_bridge.metadata.config.file import ConfigFile, read_json_file
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, OtherFormat, read_sidecar


def usable_sidecar(hf: ConfigFile) -> tuple[OtherFormat | None, tuple[str, ...]]:
    """The complement in the sidecar beside the config.json ``hf``; None and a note that says why, if it is unusable."""
    path = hf.path.parent / SIDECAR_FILE
    try:
        other_format = read_sidecar(path.parent, Format.CUSTOM)
        if other_format is not None:
            hf_family(hf, other_format.description.family)
            return other_format, ()
        tells = path.exists() and "source_format" in read_json_file(path).values
        reason = f"{path} describes an HF checkpoint, which this is itself." if tells else None
    except BridgeError as error:
        reason = error.reason
    return None, () if reason is None else (f"The sidecar is left behind: {reason}",)
