"""config.json: read, checked and translated. It does not know tokenizers, chat templates or sidecars."""
