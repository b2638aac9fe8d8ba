"""`python -m pipeline` is `heatreel`."""

from pipeline.cli import main

main()
