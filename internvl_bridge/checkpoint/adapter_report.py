"""What an adapter holds, as a report."""

from collections.abc import Iterator

from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection
from internvl_bridge.errors import first_few
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part


def adapter_summary(found: AdapterInspection) -> str:
    """What an adapter turned out to be, in a phrase."""
    return f"an adapter, {_kind(found)}, rank {found.rank}, {found.modules} modules{_saved(found)}"


def adapter_report(found: AdapterInspection) -> Iterator[Part]:
    """What ``found`` says."""
    dtypes = ", ".join(found.dtypes)
    spelling = f", modules spelled {found.spelling}" if found.spelling and found.format == "hf" else ""
    version = f", by PEFT {found.peft_version}" if found.peft_version else ""
    fits = "no base model is known; add --base" if found.spelling is None else f"yes ({found.family})"
    yield Facts(
        {
            "Adapter": found.path,
            "Kind": f"{_kind(found)}{version}",
            "Format": f"{found.format or 'unknown'}{spelling}",
            "Base model": found.base or "not named",
            "Fits it": fits if found.refusal is None else f"no. {found.refusal}",
            "Rank, alpha": f"{found.rank}, {found.alpha:g}",
            "Targets": first_few(found.targets),
            "Changes": f"{found.modules} modules{_saved(found)}",
            "Data": f"{found.parameters:,} parameters in {found.tensors:,} tensors, {human_size(found.bytes)} "
            f"({dtypes})",
        }
    )


def _kind(found: AdapterInspection) -> str:
    names = [found.peft_type, *(["rsLoRA"] if found.is_rslora else []), *(["DoRA"] if found.is_dora else [])]
    return " with ".join(names)


def _saved(found: AdapterInspection) -> str:
    return f", {found.saved} parameters replaced" if found.saved else ""
