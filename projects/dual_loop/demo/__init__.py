"""Synthetic scenes with masks, expressions and descriptions, written in every on-disk format the data sets read.

Good for trying the whole pipeline without downloads. Masks and text come from the scene itself, so they are exact.
"""

from dual_loop.demo.generation import demo_corpus, ensure_demo_data, make_demo_data

__all__ = ['demo_corpus', 'ensure_demo_data', 'make_demo_data']
