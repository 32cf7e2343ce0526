"""One readable line per logged step; everything else goes to TensorBoard and to the JSON log."""

from datetime import timedelta

from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor

from dual_loop.engine.unwrapped import unwrapped


@LOG_PROCESSORS.register_module()
class ProgressLine(LogProcessor):
    """Losses of the loops, the cosine of their gradients, seconds per phase and the time left; validation figures.

    Args:
        window_size: steps that each shown value is the mean of, but for the learning rate and ``teacher_distance``,
            which are those of the step; set it to the logging interval.
    """

    def __init__(self, window_size: int = 10):
        super().__init__(window_size=window_size, by_epoch=False, mean_pattern=r'^(?!.*lr$|.*teacher_distance$).*')

    def get_log_after_iter(self, runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        loops = getattr(unwrapped(runner.model), 'loops', {})
        if mode != 'train' or not any(f'{name}/loss' in tag for name in loops):
            return tag, line
        fields = [_step(tag['iter'], runner.max_iters)]
        for loop in loops.values():
            shown = [f'{name} {tag[place]:.3f}' for name in loop.losses if (place := f'{loop.name}/{name}') in tag]
            fields.append(f'{loop.title}: ' + ' '.join(shown))
        if 'cosine' in tag:
            fields.append(f'cos {tag["cosine"]:+.2f}')
        phases = ('data', 'teacher', *loops, 'wait', 'surgery', 'optimizer')
        times = [f'{phase} {tag[f"seconds/{phase}"]:.2f}' for phase in phases if f'seconds/{phase}' in tag]
        fields.append('s: ' + ' '.join(times))
        if 'eta' in runner.message_hub.runtime_info:
            fields.append(f'eta {timedelta(seconds=int(runner.message_hub.get_info("eta")))}')
        return tag, ' | '.join(fields)

    def get_log_after_epoch(
        self, runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """The figures of this validation alone; the mean over several that the parent takes would mix their weights.

        Its seconds per batch stay out: the log has those of training under the same names.
        """
        tag = {
            name.removeprefix(f'{mode}/'): buffer.current() for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith(f'{mode}/') and name not in (f'{mode}/time', f'{mode}/data_time')
        }
        shown: dict[str, list[str]] = {}
        for name, value in tag.items():
            prefix, _, figure = name.rpartition('/')
            shown.setdefault(prefix or mode, []).append(f'{figure} {value:.3f}')
        fields = [f'{prefix}: ' + ' '.join(figures) for prefix, figures in shown.items()]
        return tag, ' | '.join([_step(runner.iter, runner.max_iters), *fields])


def _step(step: int, steps: int) -> str:
    return f'step {step:>{len(str(steps))}}/{steps}'
