"""What an adapter directory holds, from its config and its headers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.adapters import AdapterOnDisk, base_of, described_base, read_adapter
from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.mapping.lora.keys import Part, parsed_key
from internvl_bridge.planning.adapter_plan import adapter_spelling
from internvl_bridge.reporting.tables import as_html


@dataclass(frozen=True, slots=True)
class AdapterInspection:
    """What is known about an adapter.

    ``format`` and ``spelling`` are those of the base model's modules, None without a base that is known. ``base`` is
    what adapter_config.json names. ``modules`` counts what the adapter changes, ``saved`` the parameters that it
    replaces. ``refusal`` says why it does not fit its base, None if it does or no base is known.
    """

    path: str
    format: str | None
    spelling: str | None
    family: str | None
    peft_type: str
    peft_version: str | None
    base: str | None
    rank: int
    alpha: float
    is_rslora: bool
    is_dora: bool
    targets: tuple[str, ...]
    modules: int
    saved: int
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]
    refusal: str | None

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.checkpoint.adapter_report import adapter_report  # noqa: PLC0415 (it knows this)

        return as_html(adapter_report(self))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return asdict(self)


def inspect_adapter(path: str | Path, *, base: str | Path | None = None) -> AdapterInspection:
    """Describe a LoRA adapter, from its config and its headers, and say whether it fits its base model.

    Args:
        path: Directory of an adapter, as PEFT saves it.
        base: Directory of its base model, of either format. By default the one that adapter_config.json names.

    Returns:
        What is known about it, and why it does not fit its base, if it does not.

    Raises:
        BridgeError: It is not an adapter that can be read.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.inspect_adapter("my-lora", base="InternVL3_5-8B").rank
        4
    """
    adapter = read_adapter(Path(path))
    found = inspection_of_adapter(adapter)
    try:
        place = base_of(adapter, None if base is None else Path(base))
    except OptionError:  # none is known
        return found
    try:
        description = described_base(place, adapter)
        spelling = adapter_spelling(
            adapter.specs, adapter.config, description, adapter.config.format or description.format
        )
    except BridgeError as error:
        return replace(found, refusal=str(error))
    return replace(found, format=spelling.format.value, spelling=spelling.name, family=description.family.name)


def inspection_of_adapter(adapter: AdapterOnDisk) -> AdapterInspection:
    """What is known about ``adapter`` without its base."""
    values = adapter.config.values
    dtypes: Counter[str] = Counter()
    for spec in adapter.specs.values():
        dtypes[spec.dtype] += spec.elements
    names = [parsed_key(key) for key in adapter.specs]
    changed = {(name.name, name.depth) for name in names if name.part is not Part.WHOLE}
    targets = values.get("target_modules")
    version, named = values.get("peft_version"), values.get("base_model_name_or_path")
    format_ = adapter.config.format
    return AdapterInspection(
        path=str(adapter.directory),
        format=None if format_ is None else format_.value,
        spelling=None,
        family=None,
        peft_type=str(values["peft_type"]),
        peft_version=version if isinstance(version, str) else None,
        base=named if isinstance(named, str) else None,
        rank=values["r"],
        alpha=values["lora_alpha"],
        is_rslora=bool(values.get("use_rslora")),
        is_dora=bool(values.get("use_dora")),
        targets=tuple(sorted(targets)) if isinstance(targets, list) else (str(targets),),
        modules=len(changed),
        saved=sum(name.part is Part.WHOLE for name in names),
        tensors=len(names),
        parameters=dtypes.total(),
        bytes=adapter.checkpoint.data_bytes,
        dtypes=dict(dtypes.most_common()),
        refusal=None,
    )
