"""Push the weights of an HF model into an engine that serves the custom format, one tensor after the other.

    python examples/stream_to_engine.py ./my-finetune-HF

Trainers do that between two steps. ``Engine`` stands for yours: the models of vLLM have the same ``load_weights``. One
sees how many tensors came and went, and how few bytes waited: a query for its key and value, as these are fused.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open

import internvl_bridge


class Engine:
    """Takes weights as a serving engine does, which would copy each of them into its place."""

    bytes = 0

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loaded: set[str] = set()
        for name, tensor in weights:
            loaded.add(name)
            self.bytes += tensor.nbytes
        return loaded


def tensors_of(directory: Path, engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """Read one tensor after the other. A trainer would yield those of ``model.state_dict().items()``."""
    count = come = waiting = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is not a dict)
                tensor = file.get_tensor(key)
                count, come = count + 1, come + tensor.nbytes
                yield key, tensor
                waiting = max(waiting, come - engine.bytes)  # what has come, and has not left by now
    print(f"{count} tensors came. Of {come:,} bytes, {waiting:,} waited at a time, at most.")


def main() -> None:
    """Parse the command line, and fill one engine."""
    parser = argparse.ArgumentParser(description="Push the weights of an HF model into an engine, converted.")
    parser.add_argument("hf", type=Path, help="directory of a checkpoint in the HF format, in safetensors")
    directory, engine = parser.parse_args().hf, Engine()
    try:
        config = json.loads((directory / "config.json").read_bytes())
        pairs = internvl_bridge.iter_converted(tensors_of(directory, engine), "to-custom", config=config)
        print(f"The engine got {len(engine.load_weights(pairs))} tensors.")
    except (internvl_bridge.BridgeError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
