"""The entry point of ``internvl-bridge`` and ``python -m internvl_bridge``."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C exits with 130 at any moment, also while modules are being imported."""
    try:
        from internvl_bridge import cli  # noqa: PLC0415

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:  # the exit code is decided, and what had to be removed is gone
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
