"""Convert a LoRA adapter into the other format, and compare what both do to the base model.

    python examples/convert_adapter.py ./my-lora ./InternVL3_5-8B ./my-lora-HF

BASE is the model that the adapter was trained on, in either format. Of it, only config.json and the headers are read.
One sees what the adapter is, the notes of the conversion, and how many modules have the same factors in both. The exit
code is 1 if one has not.
"""

import argparse
import sys
from pathlib import Path

import internvl_bridge


def convert_adapter(adapter: Path, base: Path, output: Path) -> bool:
    """Convert ``adapter``, and say whether ``output`` changes the base model in the same way."""
    found = internvl_bridge.inspect_adapter(adapter, base=base)
    if found.refusal is not None:
        sys.exit(found.refusal)
    print(f"{adapter} is in the {found.format} format: rank {found.rank}, {found.modules} modules of a {found.family}.")
    convert = internvl_bridge.to_hf if found.format == "custom" else internvl_bridge.to_custom
    report = convert(adapter, output, base=base)
    for text in (*report.warnings, *report.notes):
        print(f"* {text}")
    comparison = internvl_bridge.verify_adapters(adapter, output, base=base)
    print(f"{len(comparison.equal)} modules have the same factors in both, {len(comparison.distances)} have others.")
    return comparison.identical


def main() -> None:
    """Parse the command line, and convert one adapter."""
    parser = argparse.ArgumentParser(description="Convert a LoRA adapter into the other format, and compare both.")
    parser.add_argument("adapter", type=Path, help="directory of an adapter of either format, as PEFT saves it")
    parser.add_argument("base", type=Path, help="directory of its base model, of either format")
    parser.add_argument("output", type=Path, help="directory to create")
    arguments = parser.parse_args()
    try:
        identical = convert_adapter(arguments.adapter, arguments.base, arguments.output)
    except internvl_bridge.BridgeError as error:
        sys.exit(str(error))
    sys.exit(0 if identical else 1)


if __name__ == "__main__":
    main()
