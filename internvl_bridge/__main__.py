"""The entry point of ``internvl-bridge`` and ``python -m internvl_bridge``."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C exits with 130 at any moment, also while modules are being imported."""
    # Modules, and then plans, are some hundred thousand small objects without a cycle. To look for cycles among them
    # takes as long as the planning itself.
    gc.disable()
    try:
        from internvl_bridge.cli import app as cli  # noqa: PLC0415

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        _ignore_signals()
        gc.freeze()  # else Python looks for cycles once more at its end, for as long as a tenth of a large plan took


def _ignore_signals() -> None:
    """Let nothing interrupt the end: the exit code is decided, and what had to be removed is gone."""
    while True:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        except KeyboardInterrupt:
            continue
        return


if __name__ == "__main__":
    main()
