"""What libraries say before the first step, and nobody reads, stays in the log file and off the console.

Each message is named here with its cause; every other one is shown. The resolved config is logged nowhere: mmengine
writes it to ``vis_data/config.py`` of the run by itself.
"""

import logging
from pathlib import Path

#: Begin of a message -> why nobody misses it on the console.
KEPT_IN_FILE = {
    '\n' + '-' * 60 + '\nSystem environment:': 'mmengine: all versions and build flags; `dual-loop env` shows them',
    'Distributed training is not used, all SyncBatchNorm': 'mmengine: there is no batch norm in the model',
    'Hooks will be executed in the following order:': 'mmengine: every moment of a run with its hooks, 70 lines',
    'Failed to search registry with scope "mmengine" in the "builder" registry':
        'xtuner 0.2.0: its registry for data sets has no parent, and its ConcatDataset asks for one',
    'paramwise_options -- ': 'mmengine: of each parameter with a learning rate of its own, as in the config',
}
#: The same of the end of a message.
ENDS_KEPT_IN_FILE = {
    ' is skipped since its requires_grad=False': 'mmengine: of an optimizer with paramwise_cfg, each frozen parameter',
}
_CONFIG = 'Config:\n'
_NO_GPU = 'Setting accelerator to CPU. If you have GPU or other accelerator'
_DRIVER = Path('/proc/driver/nvidia')


class _ForConsole(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message.startswith(tuple(KEPT_IN_FILE)) or message.endswith(tuple(ENDS_KEPT_IN_FILE)))


class _WithoutConfig(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_CONFIG)


def keep_short(logger: logging.Logger) -> None:
    """Put the filters on a logger of mmengine; calling it again changes nothing."""
    _add(logger, _WithoutConfig)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            _add(handler, _ForConsole)


def _add(filtered: logging.Filterer, kind: type[logging.Filter]) -> None:
    if not any(isinstance(each, kind) for each in filtered.filters):
        filtered.addFilter(kind())


class _WithoutMissingGPU(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return _DRIVER.exists() or not record.getMessage().startswith(_NO_GPU)


def leave_out_missing_gpu() -> None:
    """DeepSpeed's warning, where there is no driver of a GPU that it could have overlooked."""
    _add(logging.getLogger('DeepSpeed'), _WithoutMissingGPU)
