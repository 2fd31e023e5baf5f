"""``python -m internvl_bridge``: the same as ``internvl-bridge``."""

from internvl_bridge.cli import main

if __name__ == "__main__":
    main()
