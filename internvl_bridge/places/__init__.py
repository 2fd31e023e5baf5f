"""Checkpoints that are not directories of this machine: by what they are named, and how they are read and written.

The hub is the first kind of place. :mod:`internvl_bridge.places.hub` alone imports huggingface_hub. It is imported only
when a place on the hub is given. This room knows files and ranges of bytes. It does not know models.
"""
