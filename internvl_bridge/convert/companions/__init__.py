"""The files of an output next to its weights: one module for each direction. It knows no tensor's bytes."""
