__import__('dual_loop')
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmengine.visualization import TensorboardVisBackend, Visualizer
from torch.optim import AdamW
from toy_plugin import CheckedTrainLoop, ToyDataset, ToyModel

custom_imports = dict(imports=['dual_loop'], allow_failed_imports=False)
width = 4
model = dict(type=ToyModel, width=width, head=dict(bias=True))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type=ToyDataset, width=width),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type='default_collate'))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-2))
train_cfg = dict(type=CheckedTrainLoop, max_iters=4)
default_hooks = dict(
    logger=dict(type=LoggerHook, interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=2))
visualizer = dict(type=Visualizer, vis_backends=[dict(type=TensorboardVisBackend)])
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
randomness = dict(seed=0)
log_processor = dict(by_epoch=False)
default_scope = 'mmengine'
