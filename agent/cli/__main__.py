"""`python -m relive.agent.cli`."""

import sys

from .commands import main

sys.exit(main())
