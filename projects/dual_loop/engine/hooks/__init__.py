"""Hooks of the dual loop: EMA teacher, pictures, held-out masks, the closing report, the progress line."""

from .ema_hook import TeacherEMAHook
from .held_out_hook import HeldOutHook
from .picture_hook import PictureHook
from .progress_line import ProgressLine
from .report_hook import ReportHook

__all__ = ['HeldOutHook', 'PictureHook', 'ProgressLine', 'ReportHook', 'TeacherEMAHook']
