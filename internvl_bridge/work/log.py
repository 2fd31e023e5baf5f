"""The log of long work, for services: the logger ``internvl_bridge`` of Python's logging.

It says at level INFO what begins, which files are finished, and what is complete. At level WARNING it has the warnings
of conversions. By itself it prints nothing: a program that wants it adds a handler.
"""

import logging

LOG = logging.getLogger("internvl_bridge")
LOG.addHandler(logging.NullHandler())
