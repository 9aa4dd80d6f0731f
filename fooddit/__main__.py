"""python -m fooddit: the command line."""

import sys

from fooddit.cli import main

sys.exit(main())
