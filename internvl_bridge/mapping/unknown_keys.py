"""What a foreign tensor key most likely is, and what its owner can do about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    reason: str
    remedy: str


_QUANTISED = (
    r"(qweight|qzeros|scales|g_idx|weight_scale(_inv|_2)?|input_scale|weight_zero_point|weight_packed|weight_shape|SCB"
    r"|weight_format|weight_global_scale|input_global_scale|[kv]_scale|weight\.(nested_)?(absmax|quant_map)|weight\.quant_state\..*)"
)
_QUANTISE_LATER = "Convert the unquantised checkpoint and quantise the result."

_MERGE = (
    "Merge it, and convert the result: internvl-bridge merge CHECKPOINT MERGED. Or make an adapter and its base model "
    "of it: internvl-bridge extract CHECKPOINT PARTS"
)

_CAUSES = (
    _Cause(
        r"(mlp2|pooling_before_gating|gating)\..*",
        "it belongs to the InternVL 'Flash' releases, whose visual router transformers does not have",
        "Use the release without '-Flash' in its name.",
    ),
    _Cause(
        r".*\.(modules_to_save|original_module|token_adapter)(\..*)?",
        "PEFT keeps it beside a module that it trains in full: the weights before and after are both here",
        _MERGE,
    ),
    _Cause(
        r".*\._extra_state",
        "it is the state of a layer of Transformer Engine, not a weight",
        "Export the model with the tool of the trainer that wrote it: that leaves such states out.",
    ),
    _Cause(
        r"(.*\.)?_flat_param",
        "FSDP keeps all weights of a module in it, one after the other",
        "Save the whole state dict (in FSDP: StateDictType.FULL_STATE_DICT), and convert that.",
    ),
    _Cause(
        r"(.*\.)?(v_head|value_head|score|critic)\..*",
        "it belongs to a head that scores answers, as value and reward models have, which InternVL does not have",
        "Save the model without that head.",
    ),
    _Cause(
        r".*(\.base_layer\.|\.lora_[AB]\.|\.lora_embedding_|base_model\.model\.|\.lora_magnitude_vector).*",
        "it is part of a LoRA adapter that has not been merged into its base weights",
        _MERGE,
    ),
    _Cause(
        rf".*\.layers\.[0-9]+\.(attention|feed_forward)\.w.*\.{_QUANTISED}",
        "it is part of a quantised InternLM2. The HF format splits its fused q, k and v. Packed, they would have to be "
        "moved row by row, in millions of pieces",
        _QUANTISE_LATER,
    ),
    _Cause(
        r".*\.self_attn\.[qkv]_proj\.(qweight|qzeros|scales|SCB|weight_scale(_inv)?|weight\.absmax)",
        "it is part of a quantised q, k or v, which the custom format of this model fuses",
        "If it was quantised in the HF format, remove internvl_bridge.json and give no --reference: then its language "
        "model stays a Llama.",
    ),
    _Cause(
        rf".*\.{_QUANTISED}",
        "it is quantised. Quantised layers are converted only in the language model, and only where they keep their "
        "names: AWQ, FP8 or bitsandbytes",
        _QUANTISE_LATER,
    ),
    _Cause(
        r".*\.mlp\.experts\.(gate_up_proj|down_proj)",
        "it holds all experts in one tensor, which only HF checkpoints of Qwen3-MoE (and GPT-OSS) do",
        "Correct config.json if the model is one of those; report it if another one has such tensors.",
    ),
    _Cause(
        r"(module|_orig_mod|_fsdp_wrapped_module)\..*",
        "the name carries the prefix of a training wrapper (DDP, torch.compile or FSDP), and other tensors do not",
        "Save the unwrapped model's state dict.",
    ),
)
_UNKNOWN = _Cause(
    ".*",
    "it belongs to neither checkpoint format of this model family",
    "Remove the tensor if it does not belong to the model; please report it if it does.",
)


_MANY = _Cause(
    ".*",
    "they belong to neither checkpoint format of this model family",
    "If this is an InternVL model, something has renamed its tensors: save it again under its own names, and please "
    "report it. Other models are not converted.",
)
"""Of so many tensors that removing them would leave no model."""
_FEW = 8


def reason_for_unknown(keys: Sequence[str]) -> tuple[str, str]:
    """``(reason, remedy)`` for keys that no transform claims."""
    unknown = _UNKNOWN if len(keys) <= _FEW else _MANY
    cause = next((cause for cause in _CAUSES if re.fullmatch(cause.pattern, keys[0])), unknown)
    return cause.reason, cause.remedy
