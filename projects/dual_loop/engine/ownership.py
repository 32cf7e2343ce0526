"""One run at a time in a work_dir: of two that start there the second is refused, and one that died is followed."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank, is_distributed

from llava_sam2.claims import STALE, Claim, Claimed, LostClaim
from llava_sam2.paths import writing

#: In the work_dir, as long as a run works there.
OWNER = 'owner.json'
#: Where a launcher says which process this is, before there is a process group.
_RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
_claims: dict[Path, Claim] = {}


class WorkDirInUse(RuntimeError):
    """Another run works in the work_dir."""


def own_work_dir(cfg: Config) -> None:
    """Make the work_dir that of this run, in the first of its processes; a run that ended in this process leaves it.

    Raises:
        WorkDirInUse: another run has it, here or on another host.
        CannotWrite: the work_dir cannot be written.
    """
    work_dir = cfg.get('work_dir')
    rank = get_rank() if is_distributed() else int(os.environ.get(_RANKS.get(cfg.get('launcher'), ''), 0))
    if not work_dir or rank > 0:
        return
    path = _path(work_dir)
    with writing('the run', work_dir, 'Choose another --work-dir'):
        path.parent.mkdir(parents=True, exist_ok=True)
        if (claim := _claims.get(path)) is not None:
            claim.release()
        claim = Claim(path)
        try:
            claim.take()
        except Claimed as error:
            raise WorkDirInUse(
                f'{work_dir} is in use by {error}: choose another --work-dir, or end that run first. If it is gone '
                f'without a trace on another host, wait until its sign of life is {STALE / 60:.0f} minutes old, or '
                f'remove {path}') from error
    _claims[path] = claim


def check_owned(work_dir: str | Path) -> None:
    """Make sure, before something is replaced in it, that the work_dir is still this run's.

    Raises:
        WorkDirInUse: another run took it over, while this one slept for minutes.
    """
    if (claim := _claims.get(_path(work_dir))) is None:  # not the first process
        return
    try:
        claim.check()
    except LostClaim as error:
        raise WorkDirInUse(f'this run does not own {work_dir} any more ({error}), perhaps since it stood still for '
                           f'{STALE / 60:.0f} minutes: it ends here and leaves what is there as it is') from error


def owning(run: Callable) -> Callable:
    """Decorate ``run`` of a loop: afterwards, whatever happened, others may use the work_dir.

    A work_dir that vanishes or takes no more meanwhile ends the run with :class:`CannotWrite`.
    """

    @functools.wraps(run)
    def running(loop):
        work_dir = loop.runner.work_dir
        try:
            with writing('the run', work_dir, 'Make room or bring it back, and go on with --resume'):
                return run(loop)
        finally:
            if (claim := _claims.pop(_path(work_dir), None)) is not None:
                claim.release()

    return running


def _path(work_dir: str | Path) -> Path:
    return Path(work_dir).resolve() / OWNER
