"""``python -m learngene``."""

from __future__ import annotations

import sys

from learngene.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
