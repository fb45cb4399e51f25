"""`python -m relive.agent.cli`."""

import sys

from .main import main

sys.exit(main())
