"""Importing this module registers with mmengine, by their plain names, all classes and functions that a config names.

    custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

makes ``dict(type='SAVPairDataset', ...)``, ``dict(type='TeacherEMAHook')`` or ``dict(type='collate_samples')`` work in
any config. Nothing here needs xtuner or deepspeed.
"""
# ruff: noqa: F401

import dual_loop.datasets
import dual_loop.demo
import dual_loop.engine.data_order
import dual_loop.engine.hooks
import dual_loop.engine.length_groups
import dual_loop.engine.loop
import dual_loop.engine.surgery
import dual_loop.evaluation
import dual_loop.models
import llava_sam2.model
import llava_sam2.tokenizer
