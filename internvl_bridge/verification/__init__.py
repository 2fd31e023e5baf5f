"""Two things compared: tensors, directories, files with their checksums. It writes nothing."""
