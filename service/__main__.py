"""``python -m service``: the command line in ``service.cli``."""

import sys

from service.cli.main import main, serve

__all__ = ["main", "serve"]

if __name__ == "__main__":
    sys.exit(main())
