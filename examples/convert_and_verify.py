"""Convert a checkpoint into the other format, compare the result with it, and save a page that shows both.

    python examples/convert_and_verify.py ./InternVL3_5-8B ./InternVL3_5-8B-HF

The direction is what the checkpoint asks for: a custom one becomes HF, an HF one becomes custom. Warnings and notes are
printed, and then whether both hold the same tensors, bit for bit. OUTPUT.html shows which tensor went where: open it in
a browser. The exit code is 1 if anything differs.
"""

import argparse
import sys
from pathlib import Path

import internvl_bridge


def convert_and_verify(source: Path, output: Path) -> bool:
    """Convert ``source``, and say whether ``output`` holds the same tensors."""
    found = internvl_bridge.inspect(source)
    print(f"{source} is in the {found.format} format: {found.family}, {found.parameters:,} parameters.")
    convert = internvl_bridge.to_hf if found.format == "custom" else internvl_bridge.to_custom
    report = convert(source, output)
    for warning in report.warnings:
        print(f"Warning: {warning}")
    for note in report.notes:
        print(f"Note: {note}")
    # The conversion has compared its output already. This comparison opens both directories anew, as a stranger would.
    comparison = internvl_bridge.verify(source, output)
    page = internvl_bridge.save_report(report, f"{output}.html")
    print(f"{len(comparison.equal)} tensors are equal bit for bit, {len(comparison.differences)} are not.")
    print(f"The report is {page}.")
    return comparison.identical


def main() -> None:
    """Parse the command line, and convert one checkpoint."""
    parser = argparse.ArgumentParser(description="Convert a checkpoint into the other format, and compare both.")
    parser.add_argument("source", type=Path, help="directory of a checkpoint of either format")
    parser.add_argument("output", type=Path, help="directory to create")
    arguments = parser.parse_args()
    try:
        identical = convert_and_verify(arguments.source, arguments.output)
    except internvl_bridge.BridgeError as error:
        sys.exit(str(error))
    sys.exit(0 if identical else 1)


if __name__ == "__main__":
    main()
