"""``python -m dvae``."""

import sys

from dvae.cli import main

sys.exit(main())
