"""How fast the training step is, and what bounds it (tools/benchmark_step.py)."""
