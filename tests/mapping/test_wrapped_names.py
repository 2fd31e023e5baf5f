"""Keys behind wrappers: what is taken off, what is left out, and what is left to the refusal of unknown keys."""

from collections.abc import Collection

import pytest

from internvl_bridge.mapping.wrapped_names import CleanNames, clean_name, clean_names, prefix_of

HEAD, TOWER = "language_model.lm_head.weight", "vision_tower.encoder.layer.3"


def is_model(keys: Collection[str]) -> bool:
    return all(key.startswith(("language_model.", "vision_tower.")) for key in keys)


def cleaned(*keys: str) -> CleanNames:
    found = clean_names(keys, is_model)
    assert found is not None
    return found


@pytest.mark.parametrize("prefix", ["module.", "policy.", "_forward_module.", "a.b.c.d.", "base_model.model."])
def test_a_prefix_that_every_key_has_is_taken_off(prefix: str) -> None:
    found = cleaned(prefix + HEAD, f"{prefix}{TOWER}.lambda_1")
    assert found.renamed == {prefix + HEAD: HEAD, f"{prefix}{TOWER}.lambda_1": f"{TOWER}.lambda_1"}
    assert found.remarks == (f"The keys begin with {prefix!r}, which was taken off.",)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("_orig_mod." + HEAD, HEAD),
        ("language_model._fsdp_wrapped_module.lm_head.weight", HEAD),
        ("language_model.lm_head._checkpoint_wrapped_module._orig_mod.weight", HEAD),
        (f"{TOWER}.attention.attention.key.bias", f"{TOWER}.attention.k_proj.bias"),
        (f"{TOWER}.attention.value.weight", f"{TOWER}.attention.v_proj.weight"),
        (f"{TOWER}.attention.output.dense.weight", f"{TOWER}.attention.projection_layer.weight"),
        (f"{TOWER}.output.dense.weight", f"{TOWER}.mlp.fc2.weight"),
        (f"{TOWER}.mlp.up_proj.weight", f"{TOWER}.mlp.fc1.weight"),
    ],
)
def test_names_of_wrappers_and_of_the_first_port_are_those_of_today(key: str, name: str) -> None:
    found = cleaned(key, f"{TOWER}.lambda_1")
    assert found.renamed == {key: name, f"{TOWER}.lambda_1": f"{TOWER}.lambda_1"}
    assert key in found.remarks[0]


@pytest.mark.parametrize(
    "buffer",
    [
        "n_averaged",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "language_model.model.rotary_emb.original_inv_freq",
        "language_model.model.layers.0.self_attn.rotary_emb.cos_cached",
        "vision_tower.embeddings.position_ids",
    ],
)
def test_buffers_are_left_out(buffer: str) -> None:
    found = cleaned(HEAD, buffer)
    assert (found.renamed, found.left_out, found.remarks) == ({HEAD: HEAD}, (buffer,), ())


@pytest.mark.parametrize("before", ["", "module.", "model.", "_orig_mod."])
def test_one_key_shows_the_prefix_of_all(before: str) -> None:
    prefix = prefix_of(f"{before}{HEAD}", is_model)
    assert clean_name(f"{before}{TOWER}._orig_mod.mlp.up_proj.weight", prefix) == f"{TOWER}.mlp.fc1.weight"
    assert (clean_name(HEAD, prefix) is None) == (before in {"module.", "model."})


@pytest.mark.parametrize(
    "keys",
    [
        (HEAD, f"{TOWER}.lambda_1"),
        (f"policy.{HEAD}", "critic.weight"),
        (f"a.b.c.d.e.{HEAD}",),
        ("unknown.weight",),
        (HEAD, f"_orig_mod.{HEAD}"),
        (),
    ],
)
def test_other_keys_are_left_as_they_are(keys: tuple[str, ...]) -> None:
    assert clean_names(keys, is_model) is None
