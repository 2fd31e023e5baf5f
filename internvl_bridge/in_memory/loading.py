"""Open a checkpoint as a transformers model, and as its processor, converted on the fly. Imports transformers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, overload

import transformers

from internvl_bridge.checkpoint.model import Model, Source, read_model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.checkpoint.weights import stored_plan
from internvl_bridge.convert.companions.repair import repaired_files
from internvl_bridge.convert.companions.shared import without_byte_order_marks
from internvl_bridge.convert.companions.to_hf import hf_files
from internvl_bridge.errors import CheckpointError, DifferenceError, OptionError, first_few
from internvl_bridge.in_memory.mapped_tensors import mapped_tensors
from internvl_bridge.mapping.components import place_of
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE, KeySpelling
from internvl_bridge.metadata.adapters import check_no_adapter
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.config.forks import check_no_fork
from internvl_bridge.places.names import HubName, hub_name
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.small_files import write_files

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration, InternVLProcessor

_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_NO_FIELDS = {"dtype", "torch_dtype", "quantization_config"}
"""Fields of a config that from_pretrained has an argument for."""
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


@overload
def load_pretrained(
    path_or_repo: str | Path, *, output_loading_info: Literal[True], **kwargs: Any
) -> "tuple[InternVLForConditionalGeneration, dict[str, Any]]": ...
@overload
def load_pretrained(
    path_or_repo: str | Path, *, output_loading_info: Literal[False] = False, **kwargs: Any
) -> "InternVLForConditionalGeneration": ...
def load_pretrained(path_or_repo: str | Path, *, output_loading_info: bool = False, **kwargs: Any) -> Any:
    """Open a custom checkpoint as ``InternVLForConditionalGeneration``, without writing a converted one.

    The tensors are those that :func:`internvl_bridge.to_hf` would write. Most are views of the mapped files, so loading
    takes no more memory than from the converted directory. The model is transformers' own class; no remote code runs.
    An HF checkpoint, in any spelling, is opened alike.

    Args:
        path_or_repo: Directory of a checkpoint, or the name of a hub repository.
        output_loading_info: Also return which keys were missing, unexpected or mismatched.
        **kwargs: The arguments of transformers' ``from_pretrained``: ``dtype``, ``device_map``, ... Of these,
            ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download`` go to the download.
            ``accept={"fork"}`` opens a fork, whose own code may compute something else; ``"adapter"`` the weights
            beside an adapter, without it.

    Returns:
        The model, a ``transformers.InternVLForConditionalGeneration``. With ``output_loading_info=True``, the model and
        that information.

    Raises:
        BridgeError: What :func:`internvl_bridge.to_hf` would refuse.
        DifferenceError: transformers leaves a parameter without its tensor.

    Example:
        >>> import internvl_bridge
        >>> type(internvl_bridge.load_pretrained("InternVL3_5-8B", dtype="auto")).__name__
        'InternVLForConditionalGeneration'
    """
    if "state_dict" in kwargs:
        raise OptionError("load_pretrained takes the tensors from the checkpoint.", "Leave out state_dict.")
    accept = kwargs.pop("accept", ())
    source = _read(path_or_repo, kwargs)
    if "fork" not in accept:
        check_no_fork(source.description.file)
    if "adapter" not in accept:
        check_no_adapter(source.directory)
    model, info = load_model(source, kwargs)
    _check(info, source)
    model.name_or_path = model.config._name_or_path = str(path_or_repo)  # noqa: SLF001 (transformers writes it there)
    return (model, info) if output_loading_info else model


def load_model(source: Model, kwargs: Mapping[str, Any], *, layers: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Open ``source``, or the first ``layers`` of its towers, and say which keys found no place.

    ``kwargs`` are those of ``from_pretrained``.
    """
    planned = plan_model(source, _readable(source), stores_copy=False)
    plan = planned.plan if layers is None else planned.plan.restricted(lambda key: is_in_layers(key, layers))
    tensors = mapped_tensors(stored_plan(plan, source.weights), source.checkpoint)
    options = dict(kwargs)
    with directory_beside(source, planned) as directory:
        if options.get("config") is None:
            options["config"] = _configured(transformers.AutoConfig.from_pretrained(directory), options)
        if (directory / GENERATION_FILE).exists():
            options.setdefault("generation_config", transformers.GenerationConfig.from_pretrained(directory))
    if layers is not None:
        options["config"] = with_layers(options["config"], layers)
    load: Any = transformers.InternVLForConditionalGeneration.from_pretrained
    model, info = load(None, state_dict=tensors, output_loading_info=True, **options)
    return model, info


def with_layers(config: Any, layers: int) -> Any:
    """``config``, changed so that each tower has its first ``layers`` only."""
    for section in (config.text_config, config.vision_config):
        section.num_hidden_layers = min(layers, section.num_hidden_layers)
        if getattr(section, "layer_types", None) is not None:
            section.layer_types = section.layer_types[:layers]
    return config


def is_in_layers(key: str, layers: int) -> bool:
    """Whether the tensor ``key`` is of the first ``layers`` of a tower, or outside of all layers."""
    layer = place_of(key).layer
    return layer is None or layer < layers


def _configured(config: Any, kwargs: dict[str, Any]) -> Any:
    """``config`` with those of its fields that ``kwargs`` state, which it takes out of them, as transformers does."""
    for name in kwargs.keys() & config.to_dict().keys() - _NO_FIELDS:
        setattr(config, name, kwargs.pop(name))
    return config


def load_processor(path_or_repo: str | Path, **kwargs: Any) -> "InternVLProcessor":
    """Open the processor of a custom checkpoint as transformers' own ``InternVLProcessor``.

    Its tokenizer, chat template and image processor are those that :func:`internvl_bridge.to_hf` would write.

    Args:
        path_or_repo: Directory of a checkpoint, or the name of a hub repository.
        **kwargs: The options of the download, as for :func:`load_pretrained`. The others go to
            ``AutoProcessor.from_pretrained``.

    Returns:
        The processor, a ``transformers.InternVLProcessor``.

    Raises:
        BridgeError: What :func:`internvl_bridge.to_hf` would refuse.

    Example:
        >>> import internvl_bridge
        >>> type(internvl_bridge.load_processor("InternVL3_5-8B")).__name__
        'InternVLProcessor'
    """
    source = _read(path_or_repo, kwargs)
    with directory_beside(source, plan_model(source, MOST_COMPATIBLE, stores_copy=False)) as directory:
        load: Any = transformers.AutoProcessor.from_pretrained
        processor = load(directory, **kwargs)
    processor.tokenizer.name_or_path = str(path_or_repo)
    opened: InternVLProcessor = processor
    return opened


def _read(path_or_repo: str | Path, kwargs: dict[str, Any]) -> Model:
    """The checkpoint, downloaded if it is not a directory; takes the options of the download out of ``kwargs``."""
    options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    folder = kwargs.pop("subfolder", "")
    if Path(path_or_repo).is_dir():
        return read_model(Source(Path(path_or_repo) / folder))
    name = hub_name(path_or_repo) or HubName(str(path_or_repo))
    if folder or "revision" in options:
        name = replace(name, folder=folder or name.folder, revision=options.pop("revision", name.revision))
    from internvl_bridge.places.hub import downloaded  # noqa: PLC0415 (imports huggingface_hub)

    try:
        place = downloaded(name, _WANTED, **options)
    except CheckpointError as error:
        raise OptionError(
            f"{path_or_repo} is not a directory, and cannot be loaded from the hub: {error.reason}",
            "Give the directory of a checkpoint, or the name of a repository that can be reached.",
        ) from error
    return read_model(Source(place))


def _readable(source: Model) -> KeySpelling:
    """The spelling that the installed transformers reads: versions 5.0 to 5.3 lose experts that are not fused."""
    version = tuple(int(number) for number in transformers.__version__.split(".")[:2])
    if source.description.family.split_experts and (5, 0) <= version <= (5, 3):
        return KeySpelling(MOST_COMPATIBLE.layout, Experts.FUSED)
    return MOST_COMPATIBLE


@contextmanager
def directory_beside(source: Model, planned: ModelPlan) -> Iterator[Path]:
    """A directory, for a while, with all files of the converted checkpoint but its weights."""
    make = hf_files if source.format is Format.CUSTOM else repaired_files
    files = without_byte_order_marks(make(source, planned, source.directory, None))
    with TemporaryDirectory(prefix="internvl-bridge-") as name:
        directory = Path(name)
        write_files(directory, files.texts, files.copies)
        yield directory


def _check(info: Any, source: Model) -> None:
    """Raise DifferenceError for what transformers only reports."""
    wrong = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info.get(kind, ())]
    if wrong:
        raise DifferenceError(
            f"transformers {transformers.__version__} did not take the tensors of {source.directory} as they are: "
            f"{first_few(wrong)}.",
            "Convert it with 'internvl-bridge to-hf', and please report this.",
        )
