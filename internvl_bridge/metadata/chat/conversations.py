"""How upstream writes a conversation as text: one table of the templates that config.json can name.

Source of every text: the prompts that upstream's own conversation code renders.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_SENSETIME = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
_GPT_OSS = (
    "You are InternVL, a large language model trained by Shanghai AI Laboratory.\n"
    "Knowledge cutoff: 2024-06\n"
    "Current date: 2025-08-06\n"
    "\n"
    "Reasoning: low\n"
    "\n"
    "# Valid channels: final. Channel must be included for every message."
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What stands before (``opening``) and behind (``closing``) a message of each role.

    ``cue`` makes the model answer. ``turn_end`` is the token by which it ends its answer. ``system_message`` is
    rendered when the conversation brings none.
    """

    opening: Mapping[str, str]
    closing: Mapping[str, str]
    cue: str
    turn_end: str
    system_message: str


def tagged(opening: Mapping[str, str], closing: str, system_message: str, turn_end: str) -> Conversation:
    """A conversation in which one text closes every message, and the assistant's opening is the cue."""
    return Conversation(opening, dict.fromkeys(opening, closing), opening["assistant"], turn_end, system_message)


def _chatml(closing: str, system_message: str) -> Conversation:
    opening = {role: f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")}
    return tagged(opening, closing, system_message, turn_end="<|im_end|>")


CONVERSATIONS: Mapping[str, Conversation] = {
    "internvl2_5": _chatml("<|im_end|>\n", _INTERNVL),
    "Hermes-2": _chatml("<|im_end|>", _SENSETIME),
    "internlm2-chat": _chatml("<|im_end|>", _SENSETIME),
    "phi3-chat": tagged(
        {"system": "<|system|>\n", "user": "<|user|>\n", "assistant": "<|assistant|>\n"},
        "<|end|>",
        _SENSETIME,
        turn_end="<|end|>",
    ),
    "internvl3_5_gpt_oss": tagged(
        {
            "system": "<|start|>system<|message|>",
            "user": "<|start|>user<|message|>",
            "assistant": "<|start|>assistant",
        },
        "<|end|>",
        _GPT_OSS,
        turn_end="<|return|>",
    ),
    "internvl_zh": Conversation(
        opening={"system": "", "user": "<human>: ", "assistant": "<bot>: "},
        closing={"system": " ", "user": " ", "assistant": "</s>"},
        cue="<bot>:",
        turn_end="</s>",
        system_message="",
    ),
}
MESSAGE_CHANGED = ("internlm2-chat", "phi3-chat")
"""Templates whose system message was another one in InternVL-Chat-V1-5 and the Mini models of V1-5."""
