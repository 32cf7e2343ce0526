custom_hooks = [
    dict(decay=0.999, type='dual_loop.engine.hooks.TeacherEMAHook'),
    dict(type='dual_loop.engine.hooks.HeldOutHook'),
]
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'dual_loop',
    ])
default_hooks = dict(
    checkpoint=dict(
        interval=2, type='dual_loop.engine.hooks.AtomicCheckpointHook'),
    logger=dict(
        interval=1,
        log_metric_by_epoch=False,
        type='mmengine.hooks.LoggerHook'),
    param_scheduler=dict(type='mmengine.hooks.ParamSchedulerHook'),
    sampler_seed=dict(type='mmengine.hooks.DistSamplerSeedHook'),
    timer=dict(type='mmengine.hooks.IterTimerHook'))
described = dict(
    data_root='tests/past/data/dam',
    exclude_image_ids=dict(
        data_root='tests/past/data/ref_seg',
        type='dual_loop.datasets.held_out_image_ids'),
    grounding_size=128,
    image_size=112,
    num_image_tokens=16,
    split='COCOStuff',
    type='dual_loop.datasets.DescribeAnythingDataset')
env_cfg = dict(dist_cfg=dict(backend='gloo'))
held_out = dict(
    data_root='tests/past/data/ref_seg',
    grounding_size=128,
    image_size=112,
    num_image_tokens=16,
    split='val',
    type='dual_loop.datasets.RefCOCODataset')
launcher = 'none'
load_from = None
log_processor = dict(type='dual_loop.engine.hooks.ProgressLine', window_size=1)
model = dict(
    base=dict(
        lora=dict(alpha=4, r=2),
        loss_mask=dict(num_points=64),
        pretrained='tests/past/base',
        tokenizer=dict(
            folder='tests/past/base',
            type='llava_sam2.tokenizer.load_tokenizer'),
        type='llava_sam2.model.VideoLLaVASAMModel'),
    bridge='gumbel',
    denoise_weight=0.5,
    max_caption_len=6,
    topk=16,
    type='dual_loop.models.DualLoopModel')
model_wrapper_cfg = dict(
    broadcast_buffers=False, device_ids=None, type='MMDistributedDataParallel')
optim_wrapper = dict(
    optimizer=dict(lr=0.001, type='torch.optim.AdamW', weight_decay=0.05),
    type='mmengine.optim.OptimWrapper')
param_scheduler = [
    dict(
        begin=0,
        by_epoch=False,
        end=2,
        start_factor=0.5,
        type='mmengine.optim.LinearLR'),
    dict(
        begin=2,
        by_epoch=False,
        end=4,
        eta_min=0.0,
        type='mmengine.optim.CosineAnnealingLR'),
]
randomness = dict(seed=3)
refcoco = dict(
    data_root='tests/past/data/ref_seg',
    grounding_size=128,
    image_size=112,
    num_image_tokens=16,
    split='train',
    type='dual_loop.datasets.RefCOCODataset')
resume = False
sav = dict(
    data_root='tests/past/data/sav',
    grounding_size=128,
    image_size=112,
    num_image_tokens=16,
    repeats=20,
    type='dual_loop.datasets.SAVPairDataset')
sizes = dict(grounding_size=128, image_size=112, num_image_tokens=16)
train_cfg = dict(
    loop2_dataloader=dict(
        batch_size=2,
        collate_fn=dict(type='dual_loop.datasets.collate_samples'),
        dataset=dict(
            data_root='tests/past/data/dam',
            exclude_image_ids=dict(
                data_root='tests/past/data/ref_seg',
                type='dual_loop.datasets.held_out_image_ids'),
            grounding_size=128,
            image_size=112,
            num_image_tokens=16,
            split='COCOStuff',
            type='dual_loop.datasets.DescribeAnythingDataset'),
        num_workers=0,
        sampler=dict(shuffle=True, type='mmengine.dataset.InfiniteSampler')),
    max_steps=4,
    preview_interval=0,
    surgery=dict(beta=0.5, max_grad_norm=1.0, rule='orthogonal'),
    type='dual_loop.engine.loop.DualLoopTrainLoop')
train_dataloader = dict(
    batch_size=2,
    collate_fn=dict(type='dual_loop.datasets.collate_samples'),
    dataset=dict(
        datasets=[
            dict(
                data_root='tests/past/data/sav',
                grounding_size=128,
                image_size=112,
                num_image_tokens=16,
                repeats=20,
                type='dual_loop.datasets.SAVPairDataset'),
            dict(
                data_root='tests/past/data/ref_seg',
                grounding_size=128,
                image_size=112,
                num_image_tokens=16,
                split='train',
                type='dual_loop.datasets.RefCOCODataset'),
        ],
        type='xtuner.dataset.ConcatDataset'),
    num_workers=0,
    sampler=dict(type='dual_loop.engine.length_groups.GroupedByLengthSampler'))
val_cfg = dict(type='mmengine.runner.ValLoop')
val_dataloader = dict(
    batch_sampler=dict(type='dual_loop.evaluation.GlobalBatchSampler'),
    batch_size=4,
    collate_fn=dict(type='dual_loop.datasets.collate_samples'),
    dataset=dict(
        data_root='tests/past/data/ref_seg',
        grounding_size=128,
        image_size=112,
        num_image_tokens=16,
        split='val',
        type='dual_loop.datasets.RefCOCODataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(type='dual_loop.evaluation.ReferringMetric')
visualizer = dict(
    type='mmengine.visualization.Visualizer',
    vis_backends=[
        dict(type='mmengine.visualization.LocalVisBackend'),
    ])
work_dir = 'work_dirs/past/plain'
