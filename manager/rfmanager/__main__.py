"""`python -m rfmanager`."""

import sys

from rfmanager.cli import main

sys.exit(main())
