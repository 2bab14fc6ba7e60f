"""`python -m art_mmc.cli`."""

import sys

from art_mmc.cli import main

if __name__ == "__main__":
    sys.exit(main())
