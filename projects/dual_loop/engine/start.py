"""From the arguments of ``dual-loop train`` to the train command of XTuner."""

from argparse import Namespace
from pathlib import Path

from dual_loop.checkpoints.files import check_whole
from dual_loop.config_files import read_config
from dual_loop.engine import compat
from dual_loop.engine.config_check import check_config_keys
from dual_loop.engine.dry_run import take_one_step
from dual_loop.engine.resume import latest_checkpoint


def train(args: Namespace) -> None:
    """Train, or with ``dry_run`` take one step; returns when the run is over.

    Raises:
        ModuleNotFoundError: XTuner is not installed.
        FileNotFoundError, ValueError: see :func:`xtuner_arguments`; and what the run refuses.
    """
    compat.require_xtuner()
    if args.dry_run:
        take_one_step(args, config_file(args.config), train)
    else:
        compat.train_by_xtuner(xtuner_arguments(args))


def config_file(config: str) -> Path:
    """The file of a config, which may be the name of one that ships with xtuner."""
    from xtuner.configs import cfgs_name_path

    return Path(cfgs_name_path.get(config, config))


def xtuner_arguments(args: Namespace) -> list[str]:
    """The command line of xtuner's train command that means the same as `args`.

    Raises:
        FileNotFoundError: the config or the checkpoint to resume from does not exist.
        ValueError: nothing reads one of the `--cfg-options`, or nobody knows the name of the DeepSpeed settings.
    """
    from xtuner.configs import cfgs_name_path

    config = config_file(args.config)
    stated = read_config(config, args.cfg_options)
    if args.cfg_options:
        # The training loop refuses misspelt options too, but a model and a data set have been built by then, and
        # `--deepspeed` has dropped everything of `optim_wrapper` but the optimizer.
        check_config_keys(stated)
    if args.deepspeed is not None and not Path(args.deepspeed).is_file() and args.deepspeed not in cfgs_name_path:
        known = ', '.join(sorted(path.stem for path in compat.DEEPSPEED_DIR.glob('*.json')))
        raise ValueError(f'--deepspeed {args.deepspeed}: there is no such file, and the names are {known}')
    arguments = [str(config), '--launcher', args.launcher, '--local_rank', str(args.local_rank)]
    if args.resume is not None:
        work_dir = args.work_dir or stated.get('work_dir') or f'work_dirs/{config.stem}'
        checkpoint = latest_checkpoint(work_dir) if args.resume == 'latest' else Path(args.resume)
        check_whole(checkpoint)
        arguments += ['--resume', str(checkpoint)]
    for option, value in (('--work-dir', args.work_dir), ('--deepspeed', args.deepspeed), ('--seed', args.seed)):
        if value is not None:
            arguments += [option, str(value)]
    if args.cfg_options:
        arguments += ['--cfg-options', *args.cfg_options]
    return arguments
