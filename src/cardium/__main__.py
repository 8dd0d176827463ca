"""`python -m cardium`: the same as the command `cardium`."""

import sys

from cardium.cli import main

sys.exit(main())
