"""`python -m rfproxy`."""

import sys

from rfproxy.cli import main

sys.exit(main())
