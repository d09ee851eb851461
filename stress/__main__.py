"""``python -m stress``, and ``lockloom``."""

import signal


def main() -> int:
    """Run the command line of this process; Ctrl-C ends it at any moment without a traceback."""
    # Importing takes a third of a second, in which nothing is there yet to be tidied up.
    quietly = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if quietly:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stress.cli import main as command_line

    if quietly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return command_line()


# Guarded: worker processes import this module again, under another name.
if __name__ == "__main__":
    import sys

    sys.exit(main())
