# What every run shares: hooks, log and environment.
from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, ParamSchedulerHook
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, Visualizer

from dual_loop.engine.hooks import AtomicCheckpointHook, LogHook, RankLogHook

default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LogHook, interval=5, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=AtomicCheckpointHook, interval=50, save_total_limit=2),
    sampler_seed=dict(type=DistSamplerSeedHook),
    rank_log=dict(type=RankLogHook),
)
visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend), dict(type=TensorboardVisBackend)])
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=1800),  # gloo without a GPU; seconds until a lost rank ends the others
)
# Nothing is broadcast at every step; the device is the model's own, also on a CPU.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
