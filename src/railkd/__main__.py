"""``python -m railkd``: the same as the ``railkd`` command."""

from __future__ import annotations

import sys

from railkd.cli import main

if __name__ == "__main__":
    sys.exit(main())
