"""What is measured of heatreel, each with its command: `python -m benchmarks.NAME`."""

from pipeline.memory import keep_freed_memory

keep_freed_memory()  # as the command line does, before any library has begun a thread
