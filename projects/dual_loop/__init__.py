"""dual-loop: trains Sa2VA-like models in two closed loops, as a plugin for XTuner.

Importing the package puts the library shims in place (:mod:`dual_loop.engine.compat`) and nothing else. Configs name
our classes by import and their copies in ``work_dir`` by dotted path; mmengine resolves both without registration.
:mod:`dual_loop.registered` makes the plain names known too.
"""
from dual_loop.engine import compat

__version__ = '0.1.0'

compat.apply()
