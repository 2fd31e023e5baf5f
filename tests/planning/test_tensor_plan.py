"""What the plan of a whole model says about its output head."""

import pytest
from metadata.describing import CUSTOM as STORED_CUSTOM
from metadata.describing import description
from support import DATA

from internvl_bridge.checkpoint.byte_ranges import specs_of
from internvl_bridge.mapping.spellings import CUSTOM, MOST_COMPATIBLE
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan, plan_tensors
from internvl_bridge.storage.source_shards import open_checkpoint

HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
TIED, UNTIED = "qwen3-300m-tied", "qwen2-300m"


def planned(name: str, *, copied: bool, stores_copy: bool) -> ModelPlan:
    specs = dict(specs_of(open_checkpoint(DATA / "custom" / name)))
    if copied:
        specs[HEAD] = specs[EMBEDDINGS]

    def same(*keys: str) -> bool:
        assert set(keys) == {HEAD, EMBEDDINGS}
        return True

    model = description(STORED_CUSTOM[name].values, specs)
    return plan_tensors(model, specs, (CUSTOM, MOST_COMPATIBLE), same, stores_copy=stores_copy)


@pytest.mark.parametrize("stores_copy", [False, True])
@pytest.mark.parametrize(
    ("name", "copied", "head"),
    [(UNTIED, False, OutputHead.OWN), (TIED, False, OutputHead.SHARED), (TIED, True, OutputHead.COPY)],
)
def test_what_becomes_of_the_head(name: str, copied: bool, head: OutputHead, stores_copy: bool):
    made = planned(name, copied=copied, stores_copy=stores_copy)

    assert made.head is head
    assert made.tied is (head is not OutputHead.OWN)
    assert made.adds_head is (head is OutputHead.SHARED and stores_copy)
    assert made.drops_head is (head is OutputHead.COPY and not stores_copy)
    assert (HEAD in made.plan.targets) is (head is OutputHead.OWN or stores_copy)
    assert (HEAD in made.plan.sources) is (head is OutputHead.OWN or (copied and stores_copy))


def test_the_tie_has_the_keys_of_the_target():
    assert planned("internlm2-300m", copied=False, stores_copy=False).tie.head == HEAD
