"""Read adapter_config.json, and write it for the other format: every module by its full name.

What the fields mean is as in PEFT 0.21 (tuners/tuners_utils.py, utils/other.py): lists of targets match the ends of
names, patterns match with a prefix, and the first one that matches counts.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import ConfigError, ContradictionError, UnsupportedModelError, first_few, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.factors import MERGE_IN_PEFT, Scaling
from internvl_bridge.mapping.lora.packing import PackedAdapter
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.json_files import Config, JsonFile, read_json_file
from internvl_bridge.notes import Warn

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the weights of the base: an adapter does not fit the base as it was."""
_UNKNOWN_WAYS = ("layer_replication", "use_qalora", "use_bdlora", "alora_invocation_tokens")
"""Fields that make something else of the factors, where they are set. So do others whose name ends with "_config"."""
_HARMLESS_CONFIGS = {"eva_config", "runtime_config"}
_NO_TARGET = "dummy-target-modules"
"""What PEFT takes for targets where an adapter has no factors."""
_CLASSES = {Format.HF: "InternVLForConditionalGeneration", Format.CUSTOM: "InternVLChatModel"}
_AUTO_MAPPING = {
    Format.HF: {
        "base_model_class": _CLASSES[Format.HF],
        "parent_library": "transformers.models.internvl.modeling_internvl",
    },
    Format.CUSTOM: None,  # its class is in no library
}
_LONGEST_PATTERN, _MOST_REPEATS = 500, 6
_LARGEST = 1_000_000
"""Of ranks and alphas."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """An adapter_config.json of LoRA, checked as far as its factors depend on it."""

    file: JsonFile

    @property
    def values(self) -> Config:
        return self.file.values

    @property
    def format(self) -> Format | None:
        """The format of its base model, None if it does not say."""
        mapping = self.values.get("auto_mapping")
        name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
        return next((format_ for format_, known in _CLASSES.items() if known == name), None)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that it targets by name."""
        return tuple(self.values.get("target_parameters") or ())

    def scaling_of(self, module: str, rank: int, others: Collection[str] = ()) -> Scaling:
        """The scaling of ``module``, whose factors have that ``rank``.

        ``others`` are names that it may have had when its config was written. Raises ContradictionError for another
        rank.
        """
        names = [self._matched_name(name) for name in (module, *others)]
        stated = _first_match(self.values.get("rank_pattern") or {}, names, self.values["r"])
        if stated != rank:
            raise ContradictionError(
                f"{self.file.path} gives {module} rank {stated}, but its tensors have rank {rank}.",
                "Use the adapter_config.json that the adapter was saved with.",
            )
        alpha = _first_match(self.values.get("alpha_pattern") or {}, names, self.values["lora_alpha"])
        return Scaling(alpha, rank, bool(self.values.get("use_rslora")))

    def _matched_name(self, module: str) -> str:
        """What PEFT matches patterns against: the parameter's name, where that is the target."""
        return f"{module}.weight" if self.is_parameter(f"{module}.weight") else module

    def is_parameter(self, name: str) -> bool:
        """Whether ``name`` is that of a parameter that it targets."""
        return any(f".{name}".endswith(f".{parameter}") for parameter in self.parameters)


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Read adapter_config.json of ``directory``. Raises as :func:`checked_config`."""
    return checked_config(read_json_file(directory / ADAPTER_CONFIG))


def checked_config(file: JsonFile) -> AdapterConfig:
    """Check what the factors depend on.

    Raises UnsupportedModelError for other kinds of adapters, and for those that change their base, too; ConfigError for
    values that PEFT would not take.
    """
    values = file.values
    kind = values.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"{file.path} has peft_type {shown(kind)}. Only LoRA (with rsLoRA, DoRA) is converted and merged.",
            MERGE_IN_PEFT,
        )
    begin = values.get("init_lora_weights")
    if isinstance(begin, str) and begin.lower().startswith(_CHANGES_BASE):
        raise UnsupportedModelError(
            f"{file.path} has init_lora_weights {shown(begin)}: the base model was changed when the training began. "
            f"The adapter does not fit the base model as it was released.",
            "Save it as an ordinary LoRA (in PEFT: save_pretrained with path_initial_model_for_weight_conversion), or "
            "merge it in PEFT.",
        )
    configs = [name for name in values if name.endswith("_config") and name not in _HARMLESS_CONFIGS]
    if found := [name for name in (*_UNKNOWN_WAYS, *configs) if values.get(name)]:
        raise UnsupportedModelError(
            f"{file.path} uses {first_few(found)}, which is neither converted nor merged.", MERGE_IN_PEFT
        )
    for name, is_right in _CHECKS.items():
        if not is_right(values.get(name)):
            raise ConfigError(
                f"{file.path} has {name} {shown(values.get(name))}, a value that PEFT does not have there.",
                "Use the adapter_config.json that the adapter was saved with.",
            )
    return AdapterConfig(file)


def converted_config(
    config: AdapterConfig, packed: PackedAdapter, base: Collection[str], target: Format, path: str | None
) -> dict[str, Any]:
    """The adapter_config.json of ``packed``, an adapter of a model with the tensors ``base`` in the ``target`` format.

    ``path`` is that of the base model in that format; None keeps what is stated.
    """
    values = dict(config.values)
    weights = {f"{module}.weight": module for module in packed.modules}
    named = {weight: module for weight, module in weights.items() if config.is_parameter(weight)}
    modules = {module: scaling for module, scaling in packed.modules.items() if module not in named.values()}
    parameters = {**packed.parameters, **{weight: packed.modules[module] for weight, module in named.items()}}
    scalings = {**modules, **parameters}
    changed: dict[str, Any] = {
        "target_modules": sorted(modules) or ([] if parameters else _NO_TARGET),
        "target_parameters": sorted(parameters) or None,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": _pattern({name: scaling.rank for name, scaling in scalings.items()}, values["r"]),
        "alpha_pattern": _pattern({name: scaling.alpha for name, scaling in scalings.items()}, values["lora_alpha"]),
        "modules_to_save": _saved(config, packed, base) or None,
        "trainable_token_indices": _token_indices(config, packed),
    }
    for name, value in changed.items():
        if name in values or value:
            values[name] = value
    if values.get("auto_mapping") is not None:
        values["auto_mapping"] = _AUTO_MAPPING[target]
    if path is not None:
        values["base_model_name_or_path"] = path
    if parameters and values.get("lora_dropout"):
        values["lora_dropout"] = 0.0
    return values


def notes_on_config(config: AdapterConfig, converted: Mapping[str, Any], target: Format) -> Iterator[str]:
    """What the owner of the adapter should know about its config."""
    if target is Format.CUSTOM and config.values.get("task_type") == "CAUSAL_LM":
        yield Warn(
            "task_type is CAUSAL_LM, for which PEFT asks the base model for prepare_inputs_for_generation. "
            "InternVLChatModel does not have it: set task_type to null if PEFT fails."
        )
    if converted.get("lora_dropout") != config.values.get("lora_dropout"):
        yield "lora_dropout is 0 in the output: PEFT does not know it for target_parameters. Inference does not use it."


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < _LARGEST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 1 / _LARGEST < value < _LARGEST


def _is_flag(value: object) -> bool:
    return value is None or type(value) is bool


def _is_pattern(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(_is_number(number) and _is_harmless(key) for key, number in value.items())


def _is_harmless(pattern: str) -> bool:
    """Whether matching ``pattern`` ends soon: it is somebody else's regular expression."""
    repeats = len(re.findall(r"[*+{?]", pattern))
    if len(pattern) > _LONGEST_PATTERN or repeats > _MOST_REPEATS or re.search(r"\)[*+{]", pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_list_of_words(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(word, str) for word in value))


_CHECKS: dict[str, Callable[[object], bool]] = {
    "r": _is_count,
    "lora_alpha": _is_number,
    "rank_pattern": _is_pattern,
    "alpha_pattern": _is_pattern,
    "target_parameters": _is_list_of_words,
    "modules_to_save": _is_list_of_words,
    "use_rslora": _is_flag,
    "use_dora": _is_flag,
    "lora_bias": _is_flag,
    "base_model_name_or_path": lambda value: value is None or isinstance(value, str),
}


def _first_match(patterns: Mapping[str, Any], names: Collection[str], usual: Any) -> Any:
    found = (value for key, value in patterns.items() if any(re.match(rf"(.*\.)?({key})$", name) for name in names))
    return next(found, usual)


def _pattern(stated: Mapping[str, float], usual: float) -> dict[str, float]:
    return {re.escape(name): value for name, value in sorted(stated.items()) if value != usual}


def _saved(config: AdapterConfig, packed: PackedAdapter, base: Collection[str]) -> list[str]:
    """The modules whose parameters the adapter replaces, the outermost that it replaces as a whole."""
    keys = {key for key, is_within in packed.saved.items() if not is_within}
    if config.values.get("bias", "none") != "none":  # then biases are saved without their modules
        keys = {key for key in keys if not key.endswith(".bias") or f"{key.removesuffix('bias')}weight" in keys}
    inside = {key: [".".join(parts[:n]) for n in range(1, len(parts))] for key in base if (parts := key.split("."))}
    partial = {module for key, modules in inside.items() if key not in keys for module in modules}
    return sorted({next((module for module in inside[key] if module not in partial), inside[key][-1]) for key in keys})


def _token_indices(config: AdapterConfig, packed: PackedAdapter) -> Any:
    """The indices of trained tokens; by module, if they are stated so.

    PEFT matches the ends of names, without regard to dots. Raises ContradictionError for trained rows without indices.
    """
    stated = config.values.get("trainable_token_indices")
    if isinstance(stated, dict):
        pairs = packed.tokens.items()
        stated = {new: indices for name, indices in stated.items() for new, old in pairs if old.endswith(_last(name))}
    if packed.tokens and (not stated or (isinstance(stated, dict) and stated.keys() != packed.tokens.keys())):
        raise ContradictionError(
            f"The adapter has trained rows of {first_few([*packed.tokens.values()])}, and {config.file.path} does not "
            f"say of which tokens.",
            "Use the adapter_config.json that the adapter was saved with.",
        )
    return stated


def _last(name: str) -> str:
    """The end of a module's name that is the same in all spellings."""
    return name.rpartition(".")[2]


def selects(values: Config, modules: Collection[str]) -> set[str] | None:
    """Those of ``modules`` that PEFT would change by the config ``values``; None if that is not simple to say."""
    targets, excluded = values.get("target_modules"), values.get("exclude_modules")
    if values.get("layers_to_transform") is not None or values.get("layers_pattern") is not None:
        return None
    if any(isinstance(stated, str) and not _is_harmless(stated) for stated in (targets, excluded)):
        return None
    return {name for name in modules if _is_selected(name, targets) and not _is_selected(name, excluded)}


def _is_selected(name: str, stated: object) -> bool:
    if isinstance(stated, str):
        return re.fullmatch(stated, name) is not None
    return isinstance(stated, list) and any(f".{name}".endswith(f".{target}") for target in stated)
