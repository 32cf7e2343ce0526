"""Hooks of the dual loop: checkpoints, EMA teacher, pictures, held-out masks, cycle, rank logs, report, progress."""

from .checkpoint_hook import AtomicCheckpointHook
from .cycle_hook import CycleHook
from .ema_hook import TeacherEMAHook
from .held_out_hook import HeldOutHook
from .log_hook import LogHook
from .picture_hook import PictureHook
from .progress_line import ProgressLine
from .rank_log_hook import RankLogHook
from .report_hook import ReportHook

__all__ = ['AtomicCheckpointHook', 'CycleHook', 'HeldOutHook', 'LogHook', 'PictureHook', 'ProgressLine', 'RankLogHook',
           'ReportHook', 'TeacherEMAHook']
