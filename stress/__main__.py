"""``python -m stress``."""

# Guarded: worker processes import this module again, under another name.
if __name__ == "__main__":
    import sys

    from stress.cli import main

    sys.exit(main())
