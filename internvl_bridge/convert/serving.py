"""What the engines that serve an output make of it."""

import json
from collections.abc import Iterator
from pathlib import Path

from internvl_bridge.catalog.engines import Served
from internvl_bridge.checkpoint.model import Model
from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.spellings import KeySpelling
from internvl_bridge.metadata.json_files import CONFIG_FILE
from internvl_bridge.notes import Warn
from internvl_bridge.planning.tensor_plan import ModelPlan


def served_as(
    model: Model, planned: ModelPlan, spelling: KeySpelling, companions: CompanionFiles, output: Path
) -> Served:
    """The output of a conversion as an engine finds it."""
    config = json.loads(companions.texts[CONFIG_FILE])
    return Served(
        model.description.family,
        spelling.layout,
        has_head=planned.tie.head in planned.plan.recipes,
        names_tower=bool(config["vision_config"].get("architectures")),
        names_text=bool(config.get("text_config", {}).get("architectures")),
        stacks_experts=bool(model.description.family.split_experts) and spelling.experts is Experts.FUSED,
        is_quantised=planned.linear_packing is not None,
        place=str(output.absolute()),
    )


def notes_on_serving(served: Served) -> Iterator[str]:
    """What an engine would do wrong with the output without a word."""
    yield from map(Warn, served.faults)
    if served.place_remark:
        yield served.place_remark
