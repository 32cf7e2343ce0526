"""Hooks of the dual loop: checkpoints, EMA teacher, pictures, held-out masks, logs of each rank, report, progress."""

from .checkpoint_hook import AtomicCheckpointHook
from .ema_hook import TeacherEMAHook
from .held_out_hook import HeldOutHook
from .picture_hook import PictureHook
from .progress_line import ProgressLine
from .rank_log_hook import RankLogHook
from .report_hook import ReportHook

__all__ = ['AtomicCheckpointHook', 'HeldOutHook', 'PictureHook', 'ProgressLine', 'RankLogHook', 'ReportHook',
           'TeacherEMAHook']
