"""The adapter in a checkpoint that PEFT has wrapped: its tensors, and how they are meant."""

from collections.abc import Iterator
from dataclasses import dataclass

from internvl_bridge.checkpoint.computed_tensors import AdapterTensors
from internvl_bridge.checkpoint.model import TORCH_NAMES, Model, opened_as_stored
from internvl_bridge.checkpoint.unwrapping import adapter_tensors
from internvl_bridge.errors import OptionError, UnsupportedModelError
from internvl_bridge.mapping.lora.keys import Part, parsed_key
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.adapter_config import read_adapter_config
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.edited import states_ranks
from internvl_bridge.metadata.json_files import is_present
from internvl_bridge.metadata.trained_lora import config_without_file, trained_scaling
from internvl_bridge.notes import Warn
from internvl_bridge.planning.merge_plan import StatedAdapter


@dataclass(frozen=True, slots=True)
class WrappedAdapter:
    """What the headers of a wrapped checkpoint say of its adapter, and where its tensors are.

    ``notes`` are what its owner should know.
    """

    stated: StatedAdapter
    tensors: AdapterTensors
    notes: tuple[str, ...]


def wrapped_adapter(model: Model, alpha: float | None) -> WrappedAdapter:
    """The adapter beside the weights of ``model``, which was unwrapped; ``alpha`` is what the user states.

    Raises OptionError if nothing states how it is scaled, or two do. Raises UnsupportedModelError for factors that are
    integers or quantised.
    """
    tensors = _without_tied_tokens(adapter_tensors(opened_as_stored(model)), model)
    specs = {key: TensorSpec(tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
    if odd := next((key for key, spec in specs.items() if spec.dtype not in TORCH_NAMES), None):
        raise UnsupportedModelError(
            f"{odd} in {model.source.weights} has dtype {specs[odd].dtype}, which factors do not have.",
            "Save the checkpoint again in float32, float16 or bfloat16.",
        )
    file = model.description.file
    places = (model.source.weights, model.directory)
    home = next((place for place in places if is_present(place / ADAPTER_CONFIG)), None)
    config = config_without_file(file) if home is None else read_adapter_config(home)
    if home is not None and alpha is not None:
        raise OptionError(
            f"{home / ADAPTER_CONFIG} states how the factors are scaled, and --alpha does, too.",
            "Leave out --alpha, or correct that file (lora_alpha, use_rslora).",
        )
    scaling = trained_scaling(file, alpha) if home is None else config.scaling_of
    stated = StatedAdapter(str(model.source.weights), specs, config, scaling)
    return WrappedAdapter(stated, tensors, tuple(_notes_on_alpha(model, alpha)))


def _notes_on_alpha(model: Model, alpha: float | None) -> Iterator[str]:
    """That what the user states counts, and what config.json states does not."""
    if alpha is not None and states_ranks(model.description.file.values):
        yield Warn(
            f"--alpha {alpha:g} counts. By config.json the checkpoint is one of InternVL's own trainer, which trains "
            f"with an alpha of twice the rank."
        )


def _without_tied_tokens(tensors: AdapterTensors, model: Model) -> AdapterTensors:
    """``tensors`` without the trained tokens of an output head that are those of the input embeddings.

    PEFT has both in a state dict of a tied model, and only the second in an adapter (peft 0.21, tuners/tuners_utils).
    """
    tie = tied_head(model.description.family, model.description.dims.text, model.keys)
    tokens = {parsed_key(key).name: key for key in tensors if parsed_key(key).part is Part.TOKENS}
    head, embeddings = (key.removesuffix(".weight") for key in (tie.head, tie.embeddings))
    if not model.description.may_be_tied or embeddings not in tokens:
        return tensors
    return {key: tensor for key, tensor in tensors.items() if key != tokens.get(head)}
