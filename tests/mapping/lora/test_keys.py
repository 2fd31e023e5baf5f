"""Keys of adapters are taken apart and put together again, whatever wrappers they went through."""

import pytest

from internvl_bridge.mapping.lora.keys import AdapterKey, Part, key_of, parsed_key

P = "base_model.model."


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        (f"{P}lm_head.lora_A.weight", AdapterKey("lm_head", Part.A)),
        (f"{P}a.b.lora_B.weight", AdapterKey("a.b", Part.B)),
        (f"{P}a.b.lora_B.bias", AdapterKey("a.b", Part.BIAS)),
        (f"{P}a.b.lora_magnitude_vector", AdapterKey("a.b", Part.MAGNITUDE)),
        (f"{P}a.b.lora_embedding_A", AdapterKey("a.b", Part.EMBEDDING_A)),
        (f"{P}a.b.token_adapter.trainable_tokens_delta", AdapterKey("a.b", Part.TOKENS)),
        (f"{P}a.experts.base_layer.lora_A.weight", AdapterKey("a.experts", Part.A, 1)),
        (f"{P}a.experts.base_layer.base_layer.lora_A.weight", AdapterKey("a.experts", Part.A, 2)),
        (f"{P}mlp1.0.weight", AdapterKey("mlp1.0.weight", Part.WHOLE)),
        (f"{P}a.b.base_layer.bias", AdapterKey("a.b.bias", Part.WHOLE, 1)),
        (f"{P}bare", AdapterKey("bare", Part.WHOLE)),
    ],
)
def test_a_key_of_peft_is_restored_from_its_parts(key: str, parsed: AdapterKey) -> None:
    assert parsed_key(key) == parsed
    assert key_of(parsed) == key


@pytest.mark.parametrize("prefix", ["", P, P + P])
def test_prefixes_say_nothing(prefix: str) -> None:
    assert parsed_key(f"{prefix}a.lora_A.weight") == AdapterKey("a", Part.A)


@pytest.mark.parametrize("part", [Part.A, Part.EMBEDDING_B, Part.MAGNITUDE])
def test_the_name_of_the_usual_adapter_says_nothing(part: Part) -> None:
    first, dot, rest = part.value.partition(".")
    assert parsed_key(f"{P}a.{first}.default{dot}{rest}") == AdapterKey("a", part)


def test_magnitudes_were_once_called_weights() -> None:
    assert parsed_key(f"{P}a.lora_magnitude_vector.weight") == AdapterKey("a", Part.MAGNITUDE)
