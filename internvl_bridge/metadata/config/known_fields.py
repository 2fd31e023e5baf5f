"""The fields that stand at the top of a config.json without meaning anything new."""

from collections.abc import Mapping

from internvl_bridge.mapping.formats import Format

OF_EVERY_CONFIG = frozenset(
    [
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_experts_implementation",
        "_flash_attn_2_enabled",
        "_name_or_path",
        "_output_attentions",
        "add_cross_attention",
        "architectures",
        "attn_implementation",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "custom_pipelines",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "is_decoder",
        "is_encoder_decoder",
        "keys_to_ignore_at_inference",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "model_type",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "pad_token_id",
        "prefix",
        "problem_type",
        "pruned_heads",
        "quantization_config",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "transformers.js_config",
        "typical_p",
        "use_bfloat16",
        "use_cache",
    ]
)
"""What transformers' PretrainedConfig has, from 4.37 to 5.23, and what it writes about itself."""

_OF_THE_LANGUAGE_MODEL = frozenset(
    [
        "hidden_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "vocab_size",
    ]
)
"""What trainers (DeepSpeed's integration, ms-swift, verl) and servers copy up from the config of the language model."""

OF_THE_MODEL: Mapping[Format, frozenset[str]] = {
    Format.CUSTOM: _OF_THE_LANGUAGE_MODEL
    | frozenset(
        [
            "downsample_ratio",
            "dynamic_image_size",
            "force_image_size",
            "image_fold",
            "image_token_id",
            "img_context_token_id",
            "llm_config",
            "max_dynamic_patch",
            "min_dynamic_patch",
            "pad2square",
            "ps_version",
            "select_layer",
            "system_message",
            "template",
            "use_backbone_lora",
            "use_llm_lora",
            "use_thumbnail",
            "vision_config",
        ]
    ),
    Format.HF: _OF_THE_LANGUAGE_MODEL
    | frozenset(
        [
            "downsample_ratio",
            "image_seq_length",
            "image_token_id",
            "max_dynamic_patch",
            "min_dynamic_patch",
            "projector_hidden_act",
            "text_config",
            "use_thumbnail",
            "video_token_id",
            "vision_config",
            "vision_feature_layer",
            "vision_feature_select_strategy",
        ]
    ),
}
"""What InternVLChatConfig of upstream's releases has, and InternVLConfig of transformers from 4.52 on."""
