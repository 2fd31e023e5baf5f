"""config.json: read, checked and translated. It knows no other file."""
