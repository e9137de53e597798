"""`python -m jaxglm` is `jaxglm`."""

import sys

from jaxglm.cli import main

sys.exit(main())
