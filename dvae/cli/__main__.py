"""``python -m dvae.cli``."""

import sys

from dvae.cli import main

sys.exit(main())
