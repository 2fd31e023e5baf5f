"""Open a custom checkpoint as a model of transformers, without writing a converted one, and ask it something.

    python examples/load_without_converting.py ./InternVL3_5-8B

No remote code runs, and most weights are views of the mapped files. One sees the class of the model and the whole
prompt. Then come the shape of its logits, and the first words of its answer. For a GPU, add ``device_map="auto"`` to
the arguments of ``load_pretrained``. The processor needs ``pip install torchvision pillow``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

import internvl_bridge


def answer(custom: Path, question: str) -> None:
    """Load the model and its processor, and print what it says to ``question``."""
    model: Any = internvl_bridge.load_pretrained(custom, dtype="auto")
    processor: Any = internvl_bridge.load_processor(custom)
    print(f"{custom} was opened as {type(model).__name__}, with {model.num_parameters():,} parameters.")
    message = {"role": "user", "content": [{"type": "text", "text": question}]}
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    print(f"Prompt: {processor.decode(inputs['input_ids'][0])!r}")
    with torch.no_grad():
        print(f"The logits have the shape {[*model(**inputs).logits.shape]}.")
    made = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    print(f"Answer: {processor.decode(made[0, inputs['input_ids'].shape[1] :], skip_special_tokens=True)!r}")


def main() -> None:
    """Parse the command line, and ask one question."""
    parser = argparse.ArgumentParser(description="Open a custom checkpoint with transformers, and ask it something.")
    parser.add_argument("custom", type=Path, help="directory of a checkpoint in the custom format, with its tokenizer")
    parser.add_argument("--question", default="What can you see in images?")
    arguments = parser.parse_args()
    try:
        answer(arguments.custom, arguments.question)
    except internvl_bridge.BridgeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
