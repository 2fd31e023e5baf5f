"""What a checkpoint directory holds, from its headers, its config.json and, where only they show it, some bits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from internvl_bridge.catalog.engines import Served
from internvl_bridge.catalog.transformers_versions import loading_versions
from internvl_bridge.checkpoint.component_sizes import ComponentSize, component_sizes
from internvl_bridge.checkpoint.looking import looked_at
from internvl_bridge.checkpoint.model import Model, Source, read_model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import MXFP4, packing_in
from internvl_bridge.mapping.spellings import CUSTOM, MOST_COMPATIBLE
from internvl_bridge.metadata.adapters import check_no_adapter
from internvl_bridge.metadata.config.forks import check_no_fork
from internvl_bridge.metadata.config.quantization import quantization
from internvl_bridge.metadata.config.rope import suits_transformers_4
from internvl_bridge.metadata.usage import Usage, usage_of
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.reporting.tables import as_html


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known about a checkpoint.

    ``container``: "safetensors", "pytorch_model.bin" or "torch.distributed.checkpoint". ``spelling`` is that of HF
    keys, None for custom ones. ``parameters`` counts elements of all tensors and ``dtypes`` those of each
    safetensors dtype. ``head``: "own", "shared" (the input embeddings serve as output head) or "copy" (so they do, and
    are stored twice); None if the checkpoint cannot be planned. ``saved_by``: the version of transformers that wrote
    an HF config.json, None where it does not say. ``refusal`` says why the checkpoint cannot be converted, None if it
    can. ``engines`` are those that serve it as it is, and ``faults`` say what one of them would do wrong.
    ``remarks`` say what one would do because of the path. ``transformers`` are the versions that load an HF checkpoint
    as it is. ``repairable``: repair makes one that more of them load. ``usage`` is how images and prompts become
    tokens, None if a file of the tokenizer or processor cannot be read. ``components`` are the model's parts and sizes.
    """

    path: str
    format: str
    container: str
    spelling: str | None
    family: str
    architecture: str
    tower: str
    vision_layers: int
    text_layers: int
    experts: int | None
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]
    shards: int
    head: str | None
    saved_by: str | None
    refusal: str | None
    engines: tuple[str, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    transformers: tuple[str, ...]
    repairable: bool
    usage: Usage | None = field(repr=False)
    components: tuple[ComponentSize, ...] = field(repr=False)

    @property
    def tied(self) -> bool | None:
        """Whether the input embeddings serve as output head, however often they are stored; None if not known."""
        return None if self.head is None else self.head != OutputHead.OWN.value

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {**asdict(self), "tied": self.tied}

    def _repr_html_(self) -> str:
        """The report as tables, for notebooks."""
        from internvl_bridge.checkpoint.inspection_report import inspection_report  # noqa: PLC0415 (it knows this)

        return as_html(inspection_report(self))


def inspect(path: str | Path, *, config: str | Path | None = None, state_dict: str | None = None) -> Inspection:
    """Describe the checkpoint ``path``, from its headers and its config.json.

    Reads tensor data in one case only: if config.json calls a model tied that stores both an output head and input
    embeddings. Only their bits show whether one is a copy of the other.

    Args:
        path: Directory of a checkpoint of either format, or its place on the hub (``hf://owner/name``).
        config: Directory of its config.json and tokenizer, if they are not in ``path``.
        state_dict: Which model is meant, where ``path`` holds several, such as a model and its average.

    Returns:
        What is known about it, and why it cannot be converted, if it cannot.

    Raises:
        BridgeError: It is not an InternVL checkpoint at all.

    Example:
        >>> import internvl_bridge
        >>> found = internvl_bridge.inspect("InternVL3_5-8B")
        >>> found.format, found.family, found.refusal
        ('custom', 'Qwen3', None)
    """
    with looked_at(path) as look:
        found = _inspected(Source(look.directory, None if config is None else Path(config), state_dict))
    return replace(found, path=look.name)


def _inspected(source: Source) -> Inspection:
    model = read_model(source)
    target = MOST_COMPATIBLE if model.format is Format.CUSTOM else CUSTOM
    try:
        check_no_fork(model.description.file)
        check_no_adapter(model.source.weights)
        planned = plan_model(model, target, stores_copy=target == CUSTOM)
        quantization(model.description.values, planned.packed, target.format)
        head = planned.head
    except BridgeError as error:
        return inspection_of(model, None, str(error))
    return inspection_of(model, head)


def inspection_of(model: Model, head: OutputHead | None, refusal: str | None = None) -> Inspection:
    """What is known about ``model``, whose output head is ``head``."""
    family, dims = model.description.family, model.description.dims
    served = Served(
        family,
        model.keys.layout,
        has_head=head is not OutputHead.SHARED,
        names_tower=bool(model.description.vision.get("architectures")),
        names_text=bool(model.description.text.get("architectures")),
        stacks_experts=bool(family.split_experts) and model.keys.experts is Experts.FUSED,
        is_quantised=packing_in(model.specs) not in {None, MXFP4},
        place=str(model.directory.absolute()),
    )
    dtypes: Counter[str] = Counter()
    kinds = Counter((tensor.dtype, tensor.shape) for tensor in model.checkpoint.tensors.values())
    for (dtype, shape), count in kinds.items():  # few differ
        dtypes[dtype] += count * prod(shape)
    usage, unreadable = _usage(model)
    versions = () if refusal is not None else _versions(model)
    saved_by = model.description.values.get("transformers_version") if model.format is Format.HF else None
    return Inspection(
        path=str(model.source.weights),
        format=model.format.value,
        container=model.weights.container,
        spelling=None if model.format is Format.CUSTOM else model.keys.name,
        family=family.name,
        architecture=family.architecture if model.format is Format.CUSTOM else family.hf_model_type,
        tower=dims.vision.kind,
        vision_layers=dims.vision.layers,
        text_layers=dims.text.layers,
        experts=dims.text.experts.experts if dims.text.experts else None,
        tensors=len(model.specs),
        parameters=dtypes.total(),
        bytes=model.checkpoint.data_bytes,
        dtypes=dict(dtypes.most_common()),
        shards=len(model.checkpoint.shards),
        head=None if head is None else head.value,
        saved_by=saved_by if isinstance(saved_by, str) else None,
        refusal=refusal,
        engines=served.engines if refusal is None else (),
        faults=(*served.faults, *unreadable),
        remarks=(served.place_remark,) if served.place_remark else (),
        transformers=versions,
        repairable=bool(versions) and versions != loading_versions(family, MOST_COMPATIBLE, suits_4=True),
        usage=usage,
        components=component_sizes(model.specs),
    )


def _versions(model: Model) -> tuple[str, ...]:
    """The versions of transformers that load ``model`` as it is; none loads the custom format by itself."""
    if model.format is Format.CUSTOM:
        return ()
    family = model.description.family
    text = model.description.file.values["text_config"]
    return loading_versions(family, model.keys, suits_4=suits_transformers_4(text, family))


def _usage(model: Model) -> tuple[Usage | None, tuple[str, ...]]:
    """How ``model`` is used, or why its files do not say that."""
    try:
        return usage_of(model.description), ()
    except BridgeError as error:
        return None, (str(error),)
