"""The two loops: the model, the caption bridge and the teacher."""

from .dual_loop_model import DualLoopModel

__all__ = ['DualLoopModel']
