"""How training runs: the loop, gradient surgery, EMA, hooks, and the shims that let stock XTuner drive them."""
