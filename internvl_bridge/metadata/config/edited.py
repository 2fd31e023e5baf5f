"""config.json of a checkpoint whose weights were computed: the same text but for what is not so any more."""

from typing import Any

from internvl_bridge.metadata.config.description import TEXT_SECTION, ModelDescription
from internvl_bridge.metadata.json_files import Config, as_text

_DTYPES = ("torch_dtype", "dtype")
"""What transformers 4 and 5 call it."""
RANKS = {"vision_model": "use_backbone_lora", "language_model": "use_llm_lora"}
"""The fields with the ranks of both halves: with them, upstream's code wraps the model when it loads it."""


def states_ranks(config: Config) -> bool:
    """Whether ``config`` is one of InternVL's own trainer, with factors."""
    return any(type(config.get(name)) is int and config[name] > 0 for name in RANKS.values())


def edited_config(model: ModelDescription, *, dtype: str | None, is_merged: bool, unties: bool) -> str:
    """The text of config.json after the weights were cast to ``dtype``, merged with adapters, or untied.

    It is that of the source where all of it is still so.
    """
    before = model.file.values
    after = dict(before)
    sections = ("vision_config", TEXT_SECTION[model.format])
    if is_merged:
        after |= {name: 0 for name in RANKS.values() if after.get(name)}
    if dtype is not None:
        after = _with_dtype(after, dtype)
        after |= {name: _with_dtype(after[name], dtype, add=False) for name in sections}
    if unties:
        text = TEXT_SECTION[model.format]
        after |= {"tie_word_embeddings": False, text: {**after[text], "tie_word_embeddings": False}}
    return model.file.text if after == before else as_text(after)


def _with_dtype(section: Config, dtype: str, *, add: bool = True) -> dict[str, Any]:
    """``section`` with ``dtype`` wherever it states one; at the top, where it states none, too."""
    stated = [name for name in _DTYPES if section.get(name) is not None]
    return {**section, **dict.fromkeys(stated or (_DTYPES[:1] if add else ()), dtype)}
