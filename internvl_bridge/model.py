"""A checkpoint directory, understood: its format, family, dimensions, and its plan into the other format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.byte_plan import specs_of
from internvl_bridge.errors import ConfigError, ContradictionError
from internvl_bridge.mapping.contradictions import check_against
from internvl_bridge.mapping.dimensions import ModelDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.planning import Direction, explain_unknown_keys, make_plan, prove, unmatched_keys
from internvl_bridge.mapping.schema import HEAD, has_head, has_mxfp4, hf_schema
from internvl_bridge.mapping.spellings import L1, SPELLINGS, Spelling, detect_spelling, respell, spelled
from internvl_bridge.mapping.transforms import Transform
from internvl_bridge.metadata.config_file import ConfigFile, Format, detect_format, read_config, sections
from internvl_bridge.metadata.expressible import check_biases, check_expressible
from internvl_bridge.metadata.families import custom_family, family_named, hf_family
from internvl_bridge.metadata.model_dimensions import model_dims
from internvl_bridge.metadata.sidecar import Complement, read_sidecar, reference_complement
from internvl_bridge.metadata.translation import TensorFacts, description, states_tied
from internvl_bridge.storage.checkpoint import Checkpoint, has_weights, open_checkpoint

Specs = Mapping[str, TensorSpec]

_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint on disk and what its headers and config.json say about it.

    ``complement`` is what is known about its twin in the other format. ``spelling`` is that of the
    HF keys; custom keys have only one.
    """

    directory: Path
    format: Format
    config: ConfigFile
    checkpoint: Checkpoint
    specs: Specs
    family: Family
    spelling: Spelling
    dims: ModelDims
    complement: Complement | None

    @property
    def direction(self) -> Direction:
        """The direction of a conversion into the other format."""
        return Direction.TO_HF if self.format is Format.CUSTOM else Direction.TO_CUSTOM

    @property
    def table(self) -> tuple[Transform, ...]:
        """The rows between this model's keys and those of the other format, HF keys as it spells them."""
        return spelled(self.family.table(self.dims.text), self.spelling)


def read_model(directory: Path, reference: Path | None = None) -> Model:
    """Read headers, index, config.json and sidecar of ``directory``; no tensor data.

    ``reference`` is a model of the other format that tells what this one's cannot; without it a
    sidecar in ``directory`` does. Raises a BridgeError for anything that is not an InternVL checkpoint.
    """
    config = read_config(directory)
    format_ = detect_format(config)
    sections(config)
    checkpoint = open_checkpoint(directory)
    specs = specs_of(checkpoint)
    complement = (
        _reference(reference, format_.other)
        if reference is not None
        else read_sidecar(directory, format_.other)
    )
    if format_ is Format.CUSTOM:
        family, spelling = custom_family(config, specs), L1
    else:
        twin = family_named(complement.family) if complement is not None else None
        family, spelling = hf_family(config, twin), spelling_of(specs)
    dims = model_dims(description(config.values, family))
    return Model(directory, format_, config, checkpoint, specs, family, spelling, dims, complement)


def plan_conversion(model: Model) -> Plan:
    """The plan that converts ``model`` into the other format, checked against config.json and proved.

    Raises UnsupportedModelError for what the other format cannot express, and UnknownKeyError,
    IncompleteGroupError, MissingKeyError or ContradictionError, naming the keys.
    """
    check_expressible(model.config.values)
    check_biases(description(model.config.values, model.family)["text_config"], model.family)
    plan = make_plan(model.table, model.specs, model.direction)
    _check_tensors(model, plan)
    prove(plan, lambda specs: make_plan(model.table, specs, model.direction.reverse))
    return plan


def portable_specs(model: Model, plan: Plan) -> Specs:
    """The tensors of ``model`` under their portable HF names (L1); ``plan`` is its conversion."""
    if model.format is Format.CUSTOM:
        return plan.targets
    if model.spelling is L1:
        return model.specs
    return respell(model.specs, model.spelling, L1).targets


def tensor_facts(model: Model, plan: Plan) -> TensorFacts:
    """What the tensors of ``model`` say that config.json cannot overrule."""
    keys = portable_specs(model, plan)
    sizes = dict.fromkeys(_TORCH_NAMES, 0)
    for spec in model.specs.values():
        if spec.dtype in sizes:
            sizes[spec.dtype] += spec.elements
    dtype = _TORCH_NAMES[max(sizes, key=sizes.__getitem__)]
    return TensorFacts(tied=not has_head(keys), mxfp4=has_mxfp4(keys), dtype=dtype)


def _reference(reference: Path, wanted: Format) -> Complement:
    config = read_config(reference)
    sections(config)
    if detect_format(config) is not wanted:
        raise ConfigError(
            f"The reference {reference} is not in the {wanted.value} format, which the output will have.",
            "Give the directory of a model in the output's format.",
        )
    if wanted is Format.HF:
        return reference_complement(config, hf_family(config, None).name)
    keys = open_checkpoint(reference).tensors if has_weights(reference) else ()
    return reference_complement(config, custom_family(config, keys).name)


def _check_tensors(model: Model, plan: Plan) -> None:
    """Refuse tensors that are not those that config.json describes."""
    _check_counts(model)
    portable = portable_specs(model, plan)
    required = portable.keys() if states_tied(model.config.values) else portable.keys() | {HEAD}
    schema = hf_schema(model.dims, required)
    if schema != {key: spec.shape for key, spec in portable.items()}:
        check_against(_expected_shapes(model, schema), model.specs)


def _check_counts(model: Model) -> None:
    """Refuse absurd numbers before anything is enumerated: every layer and expert has a tensor at least."""
    text, vision = model.dims.text, model.dims.vision
    for name, count in (
        ("vision_config.num_hidden_layers", vision.layers),
        ("num_hidden_layers", text.layers),
        ("num_experts", text.experts.experts if text.experts and text.model_type == "qwen3_moe" else 0),
    ):
        if count > len(model.specs):
            raise ContradictionError(
                f"{model.config.path} says that {name} is {count}, but the checkpoint has only "
                f"{len(model.specs)} tensors.",
                "Use the config.json that this checkpoint was saved with.",
            )


def spelling_of(specs: Specs) -> Spelling:
    """The spelling of HF keys. Raises UnknownKeyError, naming the odd ones, if no spelling explains all."""
    spelling = detect_spelling(specs)
    if spelling is None:
        unexplained = [unmatched_keys(s.renames, specs, Direction.TO_CUSTOM) for s in SPELLINGS]
        raise explain_unknown_keys(min(unexplained, key=len))
    return spelling


def _expected_shapes(model: Model, schema: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """``schema`` in the keys of ``model``."""
    specs = {key: TensorSpec("any", shape) for key, shape in schema.items()}
    if model.format is Format.CUSTOM:
        plan = make_plan(model.table, specs, Direction.TO_CUSTOM)
    else:
        plan = respell(specs, L1, model.spelling)
    return {key: spec.shape for key, spec in plan.targets.items()}
