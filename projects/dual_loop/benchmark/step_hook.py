"""Times the steps of a run: as they are, by phases, and the plain way."""

import json
import statistics
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import profiler

from dual_loop.engine.unwrapped import unwrapped
from llava_sam2.paths import write_whole

from .flops import step_flops
from .phases import Phases
from .plain import take_the_plain_way
from .roofs import measured_roofs, synchronise


class StepBenchmark(Hook):
    """Times a training run and writes what it found.

    The run has as many steps as ``plan``: some that warm up (compilation and capture, whose seconds are told apart),
    some that are timed, one by phases, one whose host synchronisations are counted, with ``profile`` one that torch's
    profiler watches, and with ``plain`` the first three kinds once more the straightforward way (see :mod:`.plain`).

    Args:
        rows, caption_len: of a step, for the count of arithmetic.
        out: JSON file.
        plain: measure the straightforward way too.
        warm_up, runs: steps of each kind.
        forced: let no caption of the teacher end early; else nothing is said of single tokens.
        profile: write the longest operations and a trace beside the report.

    Attributes:
        plan: way and kind of each step.
    """

    priority = 'VERY_LOW'

    def __init__(self, rows: int, caption_len: int, out: str, plain: bool = False, warm_up: int = 2, runs: int = 5,
                 forced: bool = True, profile: bool = False):
        self.rows, self.caption_len, self.out = rows, caption_len, Path(out)
        self.warm_up, self.forced = warm_up, forced
        self.results: dict[str, Any] = {}
        kinds = ['warm-up'] * warm_up + ['timed'] * runs + ['phases']
        self.plan = [('fast', kind) for kind in [*kinds, 'waits', *['profile'] * profile]]
        self.plan += [('plain', kind) for kind in kinds if plain]

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        self.device = model.base.network.device
        self.phases = Phases(self.device)
        if self.forced:
            vocabulary = model.base.vocabulary
            vocabulary.caption_length = lambda ids: None
            vocabulary.may_be_ending = lambda ids: False
        dtype = model.base.network.token_embeddings().dtype
        self.roofs = measured_roofs(self.device, dtype)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        # The loop has fetched the batch already: what is timed is the step.
        way, kind = self.plan[batch_idx]
        if way == 'plain' and 'plain' not in self.results:
            take_the_plain_way(unwrapped(runner.model))
            torch.cuda.empty_cache()
        self.results.setdefault(way, dict(warm_up=[], seconds=[], phases={}, waits={}))
        if kind == 'timed' and not self.results[way]['seconds'] and self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        self.during_step = ExitStack()
        if kind == 'phases':
            self.during_step.enter_context(self.phases.watching(unwrapped(runner.model)))
        if kind == 'waits' and self.device.type == 'cuda':
            self.warned = self.during_step.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
            self.during_step.callback(torch.cuda.set_sync_debug_mode, 'default')
        if kind == 'profile':
            self.profiler = self.during_step.enter_context(profiler.profile())
        self.images = {name: sum(len(batch['pixel_values']) for batch in batches)
                       for name, batches in (data_batch or {}).items()}
        synchronise(self.device)
        self.started = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        way, kind = self.plan[batch_idx]
        self.during_step.close()
        synchronise(self.device)
        seconds, found = time.perf_counter() - self.started, self.results[way]
        if kind == 'phases':
            inner = self.phases.take()
            engine = {name.removeprefix('seconds/'): value for name, value in (outputs or {}).items()
                      if name in ('seconds/surgery', 'seconds/optimizer', 'seconds/wait')}
            found['phases'] = inner | engine | dict(rest=seconds - sum(inner.values()) - sum(engine.values()))
        elif kind == 'waits':
            if self.device.type == 'cuda':
                waits = (each for each in self.warned if 'synchroniz' in str(each.message))
                found['waits'] = dict(Counter(map(_place, waits)))
        elif kind == 'profile':
            self._write_profile()
        else:
            found['warm_up' if kind == 'warm-up' else 'seconds'].append(seconds)
        if kind == 'timed' and self.device.type == 'cuda':
            found['peak_gib'] = torch.cuda.max_memory_allocated() / 2**30
        print_log(f'{way}, {kind}: {seconds:.3f} s', 'current')

    def _write_profile(self) -> None:
        if is_main_process():
            device = 'cuda' if self.device.type == 'cuda' else 'cpu'
            averages = self.profiler.key_averages()
            tables = [averages.table(sort_by=f'self_{each}_time_total', row_limit=40, max_name_column_width=80)
                      for each in dict.fromkeys((device, 'cpu'))]
            write_whole(self.out.with_suffix('.profile.txt'), '\n'.join(tables), 'the profile')
            self.profiler.export_chrome_trace(str(self.out.with_suffix('.trace.json.gz')))

    def after_train(self, runner) -> None:
        model, rows = unwrapped(runner.model), self.rows
        flops = step_flops(model, dict.fromkeys(model.loops, rows), self.caption_len, sum(self.images.values()))
        for found in self.results.values():
            self._derive(found, flops)
        fast, plain = self.results['fast'], self.results.get('plain')
        report = dict(
            rows=rows, caption_len=self.caption_len, ranks=get_world_size(), images=self.images, roofs=self.roofs,
            device=torch.cuda.get_device_name() if self.device.type == 'cuda' else 'CPU',
            threads=torch.get_num_threads(), torch=torch.__version__,
            flops=dict(vars(flops), total=flops.total), **self.results)
        if plain:
            report['ratio'] = plain['median'] / fast['median']
        if is_main_process():
            write_whole(self.out, json.dumps(report, indent=1) + '\n', 'the report of the benchmark')
            print_log(describe(report), 'current')

    def _derive(self, found: dict, flops) -> None:
        found['median'] = median = statistics.median(found['seconds'])
        found['compile_and_capture'] = max(0.0, sum(found['warm_up']) - self.warm_up * median)
        found['tflops'] = flops.total / median / 1e12
        found['share_of_arithmetic'] = found['tflops'] / self.roofs['tflops']
        if self.forced and (teacher := found['phases'].get('teacher')):
            found['ms_a_token'] = 1e3 * teacher / self.caption_len
            found['tokens_per_s'] = self.rows * self.caption_len / teacher
            read = flops.decoded_bytes * self.caption_len / teacher / 1e9
            found['share_of_bandwidth'] = read / self.roofs['gb_per_s']
        passes = sum(found['phases'].get(name, 0.0) for name in ('language model', 'head', 'backward'))
        found['student_tflops'] = (flops.language_model + flops.backward) / passes / 1e12 if passes else float('nan')


def describe(report: dict) -> str:
    """The report as a table."""
    ways = [way for way in ('fast', 'plain') if way in report]
    figures = [('median', 's a step'), ('compile_and_capture', 's to compile and capture'), ('peak_gib', 'GiB at most'),
               ('tflops', 'useful TFLOP/s'), ('student_tflops', 'useful TFLOP/s of the student passes'),
               ('share_of_arithmetic', 'share of the measured arithmetic'), ('ms_a_token', 'ms a decoded token'),
               ('tokens_per_s', 'decoded tokens a second'), ('share_of_bandwidth', 'share of the measured bandwidth')]
    lines = [f'{report["device"]}, {report["ranks"]} rank(s), {report["rows"]} rows x {report["caption_len"]} tokens; '
             f'roofs {report["roofs"]["tflops"]:.1f} TFLOP/s, {report["roofs"]["gb_per_s"]:.0f} GB/s',
             ' ' * 40 + ''.join(f'{way:>12}' for way in ways)]
    for key, title in figures:
        values = [report[way].get(key) for way in ways]
        if any(value is not None for value in values):
            cells = (f'{value:12.4g}' if value is not None else ' ' * 12 for value in values)
            lines.append(f'{title:40}' + ''.join(cells))
    for phase in dict.fromkeys(name for way in ways for name in report[way]['phases']):
        lines.append(f'  {phase:38}' + ''.join(f'{report[way]["phases"].get(phase, 0):12.3f}' for way in ways))
    waits = report['fast']['waits']
    if waits:
        lines.append(f'{sum(waits.values())} host synchronisations a step; most at')
        lines += [f'  {count:4d}  {place}' for place, count in Counter(waits).most_common(12)]
    if 'ratio' in report:
        lines.append(f'{report["ratio"]:.2f} times as fast as the plain way')
    return '\n'.join(lines)


def _place(warning: warnings.WarningMessage) -> str:
    return f'{"/".join(Path(warning.filename).parts[-3:])}:{warning.lineno}'
