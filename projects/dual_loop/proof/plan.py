"""The runs of the proof: arms (configs/proof), shares of captioned scenes, seeds and lengths."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

#: Where every try has the same chance: of these the recipe is chosen on the validation scenes.
TRIED_RATES = (1e-4, 3e-4, 1e-3)
#: Optimizer steps of the arms where steps are equal, and of ``both`` where time is; in the main comparison.
STEPS, MAIN_STEPS = 600, 1000
#: Chosen on the validation scenes: the rate of all, the arm that is held against ``supervised`` on the test scenes, and
#: the steps that are best for ``supervised``.
RATE, BEST, BEST_SUPERVISED_STEPS = 3e-4, 'discrete', 600
#: Repeated with further seeds and shares.
MAIN = tuple(dict.fromkeys(('supervised', 'loop2', 'both', BEST, 'ceiling')))
#: Further lengths of ``supervised`` with other shares, since which is best depends on the share.
SHARE_STEPS = (200, 600, 2000)
#: Of a run that measures the seconds of a step, and pictures and regions of the figures that it must have.
SPEED_STEPS, FEW = 60, 16


@dataclass(frozen=True)
class Run:
    """One run of an arm.

    Attributes:
        arm: name of a file in configs/proof.
        steps: optimizer steps.
        rate: learning rate at its highest.
        percent: of the scenes that have captions with masks: '1', '5' or '20'.
        seed: of initialisation, order and draws.
        held_out: scenes of the figures: 'val', 'test', or 'few' of 'val', where nobody reads them.
    """

    arm: str
    steps: int = STEPS
    rate: float = RATE
    percent: str = '5'
    seed: int = 0
    held_out: str = 'val'

    @property
    def name(self) -> str:
        return f'{self.arm}-{self.percent}-{self.steps}-{self.rate:g}-{self.seed}-{self.held_out}'

    def config(self, root: Path) -> Config:
        """The arm's config with this run's settings.

        Args:
            root: of the checkout.
        """
        cfg = Config.fromfile(root / f'configs/proof/{self.arm}.py')
        captioned = cfg.captioned_b['5']['datasets']
        for dataset in _datasets(cfg):
            if dataset in captioned:
                dataset.update(cfg.captioned_b[self.percent]['datasets'][captioned.index(dataset)])
        scenes = 'val' if self.held_out == 'few' else self.held_out
        cfg.val_dataloader.dataset = cfg.refcoco_b[scenes]
        if self.held_out == 'few':
            cfg.val_dataloader.dataset.max_samples = FEW
        for hook in cfg.custom_hooks:
            if hook.get('datasets'):
                hook.datasets = [cfg.descriptions_b[scenes]]
                if self.held_out == 'few':
                    hook.num_samples = FEW
        for loop in cfg.model.loops:
            if 'first_step' in loop:  # the same share of any length; the seconds are those of the steps after it
                loop.first_step = 0 if self.held_out == 'few' else loop.first_step * self.steps // STEPS
        cfg.train_cfg.max_steps = self.steps
        cfg.optim_wrapper.optimizer.lr = self.rate
        warm_up, decay = cfg.param_scheduler
        warm_up.end = decay.begin = min(warm_up.end, self.steps // 2)
        decay.end = self.steps
        cfg.randomness.seed = self.seed
        return cfg


def _datasets(cfg: Config) -> list:
    loaders = [cfg.train_dataloader, *cfg.train_cfg.loop_dataloaders.values()]
    return [dataset for loader in loaders for dataset in loader.dataset.datasets]


def arms(root: Path) -> list[str]:
    """Names of all arms."""
    return sorted(path.stem for path in (root / 'configs/proof').glob('*.py'))


def stage(name: str, root: Path, seconds: Mapping[str, float]) -> list[Run]:
    """The runs of a stage.

    Args:
        name: ``speed`` (each arm alone on the machine), ``recipe`` (learning rates), ``arms`` (all of them in equal
            steps), ``time`` (all of them in equal time), ``main`` (five seeds, on the test scenes) or ``shares`` (1 and
            20 per cent, three seeds, on the test scenes; without ``ceiling``, which has all captions at any share).
        root: of the checkout.
        seconds: of a step of each arm, by ``speed``; those of ``supervised`` are taken for ``ceiling``, whose step is
            the same.

    Raises:
        ValueError: no such stage, or one that needs the seconds of an arm that has none.
    """
    def timed(arm: str, steps: int = MAIN_STEPS) -> int:
        arm = 'supervised' if arm == 'ceiling' else arm
        if missing := {arm, 'both'} - seconds.keys():
            raise ValueError(f'stage {name} gives each arm the same time, and the seconds of a step are not known of '
                             f'{", ".join(sorted(missing))}: run the stage speed first')
        return round(steps * seconds['both'] / seconds[arm])

    if name == 'speed':
        return [Run(arm, SPEED_STEPS, held_out='few') for arm in arms(root)]
    if name == 'recipe':
        return [Run(arm, rate=rate) for arm in ('supervised', 'loop2', 'both') for rate in TRIED_RATES]
    if name == 'arms':
        return [Run(arm) for arm in arms(root)]
    if name == 'time':
        return [Run(arm, timed(arm, STEPS)) for arm in arms(root)]
    if name == 'main':
        lengths = {arm: {MAIN_STEPS, timed(arm)} for arm in MAIN}
        lengths['supervised'].add(BEST_SUPERVISED_STEPS)
        return [Run(arm, steps, seed=seed, held_out='test') for seed in range(5) for arm in MAIN
                for steps in sorted(lengths[arm])]
    if name == 'shares':
        lengths = {arm: {timed(arm)} for arm in MAIN if arm != 'ceiling'}
        lengths['supervised'].update(SHARE_STEPS)
        return [Run(arm, steps, percent=percent, seed=seed, held_out='test') for percent in ('1', '20')
                for seed in range(3) for arm in lengths for steps in sorted(lengths[arm])]
    raise ValueError(f'there is no stage {name!r}: use speed, recipe, arms, time, main or shares')
