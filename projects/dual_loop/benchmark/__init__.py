"""How fast the training step and the evaluation are, and what bounds them
(tools/benchmark_step.py, tools/benchmark_eval.py).
"""
