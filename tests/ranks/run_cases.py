"""Train several cases one after the other in this process, or in each process of a torchrun group.

    python tests/ranks/run_cases.py CASES.json OUT
    python -m torch.distributed.run --standalone --nproc_per_node 2 tests/ranks/run_cases.py CASES.json OUT

CASES.json holds ``sizes`` of the network, ``samples`` (a file) and ``cases`` (see ``tiny_training.DEFAULTS``). Every
rank leaves ``OUT/<name>/rank<r>/record.pt``. The processes and their group serve all cases, since the imports cost more
than a case does.
"""

import gc
import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from faults import lift_faults
from mmengine.dist import get_rank, init_dist
from tiny_training import train, write_config


def main(cases_file: str, out: str) -> None:
    plan = json.loads(Path(cases_file).read_text())
    launcher = 'pytorch' if 'RANK' in os.environ else 'none'
    if launcher == 'pytorch':
        init_dist(launcher, backend='gloo')
    for case in plan['cases']:
        started = time.perf_counter()
        work_dir = Path(out, case['name']).resolve()
        config = write_config(case, plan['sizes'], Path(plan['samples']), work_dir)
        # The negative control: the loop finds no other rank.
        alone = mock.patch('dual_loop.engine.loop.all_reduce_mean_', lambda buffer: buffer)
        with nullcontext() if case.get('averaging', True) else alone:
            try:
                train(case, config, work_dir, launcher)
            except SystemExit as stopped:
                config.with_name('status').write_text(str(stopped.code))
            finally:
                lift_faults()
        gc.collect()  # DeepSpeed's engine asks for the process group when it goes
        if get_rank() == 0:
            print(f'{case["name"]}: {time.perf_counter() - started:.1f} s', flush=True)
    if launcher == 'pytorch':
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
