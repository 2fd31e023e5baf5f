"""config.json: read, checked and translated. It knows no tokenizer, no chat template, no sidecar."""
