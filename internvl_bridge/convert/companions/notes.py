"""What a report says beside the facts: what was assumed, left out, or deserves attention."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.mapping.families import LLAMA
from internvl_bridge.metadata.files import has_tokenizer
from internvl_bridge.metadata.tokenizer.token_ids import find_token
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan

# Fields of an HF text config that the custom format says elsewhere, or that say nothing about the model.
_SAID_OTHERWISE = {
    "model_type",
    "architectures",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "attention_bias",
    "mlp_bias",
    "head_dim",
    "pretraining_tp",
    "quantization_config",
}


def notes_on_tensors(model: Model, planned: ModelPlan) -> Iterator[str]:
    """What became of the output head, and what the trainer dumped beside the weights."""
    tie = planned.tie
    if planned.adds_head:
        yield (
            f"The model is tied (its input embeddings serve as output head): {tie.head} is a copy of {tie.embeddings}. "
            f"to-hf drops it again, as long as both are equal; '--tied keep' writes none."
        )
    if planned.drops_head:
        yield (
            f"config.json says that the model is tied, and its output head equals its input embeddings bit for bit: "
            f"{tie.head} is not written."
        )
    if planned.head is OutputHead.OWN and model.description.may_be_tied:
        yield (
            "config.json says that the output head is the input embeddings, but the checkpoint has a head of its "
            "own, which differs: that one is used, and the output's config.json says so."
        )
    if model.weights.left_out:
        yield f"Left out, as no weights of the model: {', '.join(model.weights.left_out)}."


def notes_to_hf(model: Model, made: Mapping[str, Any]) -> Iterator[str]:
    """What the owner of a custom checkpoint should know about its HF twin, whose config.json is ``made``."""
    layer = model.description.values.get("select_layer", -1)
    if layer != -1:
        yield (
            f"vision_feature_layer is {layer}: transformers 5 reads that, 4.57 and older fail with an AttributeError."
        )
    stated, ends = model.description.text.get("eos_token_id"), made["text_config"].get("eos_token_id")
    if stated is not None and ends != stated:
        yield (
            f"llm_config has eos_token_id {stated}, but a turn ends with {ends}, says the chat template: the output's "
            f"config.json and generation_config.json say so too, and generation stops there."
        )


def notes_to_custom(model: Model, assumed: Mapping[str, Any], tokenizer_home: Path) -> Iterator[str]:
    """What the owner of an HF checkpoint should know about its custom twin; ``assumed`` are config fields."""
    description, other_format = model.description, model.other_format
    if assumed:
        values = ", ".join(f"{name} {value!r}" for name, value in assumed.items())
        yield f"Nothing tells these, so they were assumed: {values}. If one is wrong, give the original as --reference."
    if description.family.hf_model_type == LLAMA.hf_model_type:
        if other_format is None:
            yield (
                f"HF does not tell InternLM2 from Llama: the language model has {description.family.name}'s names, as "
                f"no sidecar or --reference says otherwise. If it was an InternLM2 (InternVL2 and 2.5 of 2B, 8B and "
                f"26B), convert again with the original model as --reference."
            )
        else:
            yield f"The language model has {description.family.name}'s names, as {other_format.origin} says."
    known = {field.hf for field in description.text_fields} | _SAID_OTHERWISE
    if unknown := sorted(description.text.keys() - known):
        yield (
            f"These fields of text_config are unknown to this version and were left out (the sidecar keeps them): "
            f"{', '.join(unknown)}."
        )
    yield from _tokenizer_notes(model, tokenizer_home)


def _tokenizer_notes(model: Model, tokenizer_home: Path) -> Iterator[str]:
    """What is odd about the tokenizer of an HF source; the custom format needs no token id."""
    stated = model.description.values.get("image_token_id")
    found = set(find_token(tokenizer_home, IMAGE_CONTEXT).values())
    if not has_tokenizer(tokenizer_home):
        yield f"{tokenizer_home} holds no tokenizer, so that the output has none: give the base model's as --tokenizer."
    elif found and found != {stated}:
        ids = ", ".join(map(str, sorted(found)))
        yield (
            f"config.json says that image_token_id is {stated}, but the tokenizer has {ids} for "
            f"{IMAGE_CONTEXT}. The custom format asks the tokenizer."
        )
