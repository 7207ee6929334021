"""Entry point of `python -m moderato_model`."""

import sys

from .cli import main

sys.exit(main())
