"""The processor's files: how images become pixels, and how many tokens a tile becomes."""

from collections.abc import Mapping
from typing import Any

from internvl_bridge.metadata.config.tiling import Tiling, hf_fields
from internvl_bridge.metadata.json_files import Config

PROCESSOR_FILE = "processor_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
HF_PROCESSOR_FILES = (PROCESSOR_FILE, PREPROCESSOR_FILE, VIDEO_FILE)

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
"""What upstream normalises by in training and in its examples, whatever a preprocessor_config.json says."""

IMAGE_CLASS, VIDEO_CLASS = "GotOcr2ImageProcessor", "InternVLVideoProcessor"

_CLASS = {"processor_class": "InternVLProcessor"}
CLASSES = {
    PROCESSOR_FILE: _CLASS,
    PREPROCESSOR_FILE: {**_CLASS, "image_processor_type": f"{IMAGE_CLASS}Fast"},
    VIDEO_FILE: {**_CLASS, "video_processor_type": VIDEO_CLASS},
}
"""How each file names its class, in the one way that transformers 4 and 5 read alike."""

_BICUBIC = 3
_PIXELS = (
    *("do_convert_rgb", "do_normalize", "do_rescale", "do_resize"),
    *("image_mean", "image_std", "resample", "rescale_factor", "size"),
)


def hf_processor_files(image_size: int, tokens_per_tile: int, tiling: Tiling) -> dict[str, dict[str, Any]]:
    """The three files by name, as transformers 4.57 writes them and 5 reads them too.

    ``image_size`` is the side of a tile in pixels.
    """
    pixels = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }
    processor = {"image_seq_length": tokens_per_tile}
    named = zip(HF_PROCESSOR_FILES, (processor, {**pixels, **hf_fields(tiling)}, video_processor(pixels)), strict=True)
    return {name: dict(sorted({**values, **CLASSES[name]}.items())) for name, values in named}


def video_processor(image: Config) -> dict[str, Any]:
    """A video processor that makes of a frame the pixels which the processor ``image`` makes of a tile."""
    return {**{name: image[name] for name in _PIXELS if name in image}, "do_sample_frames": False}


def image_processor(files: Mapping[str, Config]) -> Config:
    """The image processor's config among an HF directory's processor files, wherever it stands.

    transformers 4 gives it a file of its own, transformers 5 a section of processor_config.json.
    """
    inner = files.get(PROCESSOR_FILE, {}).get("image_processor")
    return inner if isinstance(inner, dict) and inner else files.get(PREPROCESSOR_FILE, {})


def custom_preprocessor(image_size: int) -> dict[str, Any]:
    """The custom format's preprocessor_config.json, which is CLIP's and holds no tiling."""
    return {
        "crop_size": image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": _BICUBIC,
        "size": image_size,
    }
