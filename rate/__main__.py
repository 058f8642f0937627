"""``python -m rate`` is the command ``rate``."""

import sys

from rate.cli import main

sys.exit(main())
