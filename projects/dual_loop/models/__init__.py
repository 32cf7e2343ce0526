"""The loops and what they need: the model, the caption bridge and the teacher."""

from .bridge import BridgeOutput, CaptionBridge
from .caption_loop import CaptionLoop
from .dual_loop_model import DualLoopModel
from .loop import Loop, Passage
from .mask_loop import MaskLoop
from .supervised_loop import SupervisedLoop
from .teacher import FrozenTeacher, LiveTeacher, Teacher
from .words_loop import WordsLoop

__all__ = ['BridgeOutput', 'CaptionBridge', 'CaptionLoop', 'DualLoopModel', 'FrozenTeacher', 'LiveTeacher', 'Loop',
           'MaskLoop', 'Passage', 'SupervisedLoop', 'Teacher', 'WordsLoop']
