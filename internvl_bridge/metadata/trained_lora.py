"""How the factors in a whole checkpoint are scaled, which no adapter_config.json states.

InternVL's own trainer writes the ranks to config.json, as use_backbone_lora and use_llm_lora. It trains with an alpha
of twice the rank (internvl_chat_finetune.py, wrap_backbone_lora and wrap_llm_lora).
"""

import shlex
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from internvl_bridge.errors import OptionError, shown
from internvl_bridge.mapping.lora.factors import Scaling
from internvl_bridge.metadata.adapter_config import AdapterConfig
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.edited import RANKS, states_ranks
from internvl_bridge.metadata.json_files import JsonFile

ScalingOfNames = Callable[[str, int, Collection[str]], Scaling]
"""The scaling of a module, by its name, its rank, and other names that it may have had."""
_LARGEST = 1_000_000


def trained_scaling(file: JsonFile, alpha: float | None) -> ScalingOfNames:
    """The scaling of factors beside the weights that config.json ``file`` describes; ``alpha`` is stated by the user.

    Raises OptionError for an ``alpha`` that is not positive, and where neither says it.
    """
    if alpha is not None and not 0 < alpha < _LARGEST:
        raise OptionError(f"{alpha} is not an alpha of LoRA.", "Give the lora_alpha of the training, as in --alpha 32.")
    if alpha is None and not states_ranks(file.values):
        place = shlex.quote(str(file.path.parent))
        raise OptionError(
            f"Nothing says how the factors are scaled: {file.path} has no use_llm_lora, as InternVL's own trainer "
            f"writes it, and there is no {ADAPTER_CONFIG}.",
            f"Add --alpha ALPHA (alpha=...), the lora_alpha of the training, or put its {ADAPTER_CONFIG} into {place}.",
        )

    def scaling_of(module: str, rank: int, _: Collection[str]) -> Scaling:
        if alpha is not None:
            return Scaling(alpha, rank, is_rslora=False)
        name = RANKS.get(module.partition(".")[0])
        stated = None if name is None else file.values.get(name)
        if stated != rank:
            raise OptionError(
                f"{file.path} has {name or 'no rank for it'} {shown(stated)}, but the factors of {module} have rank "
                f"{rank}. So they are not those of InternVL's own trainer, whose alpha is twice that rank.",
                "Add --alpha ALPHA (alpha=...), the lora_alpha of the training.",
            )
        return Scaling(2 * rank, rank, is_rslora=False)

    return scaling_of


def config_without_file(file: JsonFile) -> AdapterConfig:
    """What an adapter_config.json would say of factors beside the weights that config.json ``file`` describes.

    Ranks and alphas are those of :func:`trained_scaling`.
    """
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "r": 1,
        "target_modules": [],
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    return AdapterConfig(replace(file, values=values))
