"""What stands beside the weights: config.json, tokenizer, sidecar."""
