"""Run llama.cpp's converter on a checkpoint with a made-up vocabulary: LLAMA_CPP MODEL ARGUMENTS...

It knows pre-tokenizers by checksums of what they make of a text, and those of tests are not among them.
"""

import runpy
import sys

llama_cpp, *arguments = sys.argv[1:]
sys.path[:0] = [llama_cpp, f"{llama_cpp}/gguf-py"]

from conversion.base import TextModel  # noqa: E402

TextModel.get_vocab_base_pre = lambda *_: "qwen2"
sys.argv = ["convert_hf_to_gguf.py", *arguments]
runpy.run_path(f"{llama_cpp}/convert_hf_to_gguf.py", run_name="__main__")
