"""Every module and tool has a test of its name, or is named here with the test that covers it."""

import ast

import pytest

#: Module or tool -> the test that covers it, of those that are tested through another one.
COVERED_BY = {
    'projects/dual_loop/benchmark/plain.py': 'tests/test_tools/test_benchmark_step.py',
    'projects/dual_loop/benchmark/roofs.py': 'tests/test_tools/test_benchmark_step.py',
    'projects/dual_loop/benchmark/step_hook.py': 'tests/test_tools/test_benchmark_step.py',
    'projects/dual_loop/checkpoints/conversion.py': 'tests/test_tools/test_convert_ckpt_to_hf.py',
    'projects/dual_loop/datasets/callables.py': 'tests/test_dual_loop/test_datasets/test_base.py',
    'projects/dual_loop/datasets/check.py': 'tests/test_tools/test_check_data.py',
    'projects/dual_loop/datasets/check_folder.py': 'tests/test_dual_loop_command/test_check.py',
    'projects/dual_loop/datasets/folder_objects.py': 'tests/test_dual_loop/test_datasets/test_folder.py',
    'projects/dual_loop/datasets/indexed.py': 'tests/test_dual_loop/test_datasets/test_index_code.py',
    'projects/dual_loop/datasets/sav_masklets.py': 'tests/test_dual_loop/test_datasets/test_sav.py',
    'projects/dual_loop/datasets/sav_npz.py': 'tests/test_dual_loop/test_datasets/test_sav.py',
    'projects/dual_loop/demo/backgrounds.py': 'tests/test_dual_loop/test_demo/test_rendering.py',
    'projects/dual_loop/demo/expressions.py': 'tests/test_dual_loop/test_demo/test_wording.py',
    'projects/dual_loop/demo/scene.py': 'tests/test_dual_loop/test_demo/test_rendering.py',
    'projects/dual_loop/demo/shapes.py': 'tests/test_dual_loop/test_demo/test_rendering.py',
    'projects/dual_loop/demo/world.py': 'tests/test_dual_loop/test_demo/test_rendering.py',
    'projects/dual_loop/demo_page/layout.py': 'tests/test_dual_loop/test_demo_page/test_in_a_browser.py',
    'projects/dual_loop/engine/hooks/checkpoint_hook.py': 'tests/test_dual_loop/test_engine/test_resumed_runs.py',
    'projects/dual_loop/engine/start.py': 'tests/test_tools/test_train_cli.py',
    'projects/dual_loop/engine/stopwatch.py': 'tests/test_dual_loop/test_engine/test_loop.py',
    'projects/dual_loop/engine/surgery_rules.py': 'tests/test_dual_loop/test_engine/test_surgery.py',
    'projects/dual_loop/engine/unwrapped.py': 'tests/test_dual_loop/test_engine/test_distributed.py',
    'projects/dual_loop/estimate/as_on_gpu.py': 'tests/test_dual_loop/test_estimate/test_step.py',
    'projects/dual_loop/estimate/batches.py': 'tests/test_dual_loop/test_estimate/test_step.py',
    'projects/dual_loop/estimate/decoder_layers.py': 'tests/test_dual_loop/test_estimate/test_step.py',
    'projects/dual_loop/estimate/table.py': 'tests/test_dual_loop_command/test_estimate.py',
    'projects/dual_loop/evaluation/command_line.py': 'tests/test_tools/test_eval_refcoco.py',
    'projects/dual_loop/evaluation/comparison.py': 'tests/test_tools/test_compare_results.py',
    'projects/dual_loop/evaluation/cycle_probe.py': 'tests/test_dual_loop/test_evaluation/test_cycle.py',
    'projects/dual_loop/evaluation/scene_truth.py': 'tests/test_dual_loop/test_demo/test_truth.py',
    'projects/dual_loop/evaluation/cycle_table.py': 'tests/test_tools/test_eval_cycle.py',
    'projects/dual_loop/evaluation/photograph.py': 'tests/test_dual_loop_command/test_segment.py',
    'projects/dual_loop/evaluation/tasks.py': 'tests/test_tools/test_eval_cycle.py',
    'projects/dual_loop/loop_names.py': 'tests/test_dual_loop/test_models/test_supervised_loop.py',
    'projects/dual_loop/models/loop.py': 'tests/test_dual_loop/test_models/test_supervised_loop.py',
    'projects/dual_loop/visualization/browse.py': 'tests/test_tools/test_browse_dataset.py',
    'projects/dual_loop_command/browse.py': 'tests/test_tools/test_browse_dataset.py',
    'projects/dual_loop_command/command.py': 'tests/test_dual_loop_command/test_main.py',
    'projects/dual_loop_command/compare.py': 'tests/test_tools/test_compare_results.py',
    'projects/dual_loop_command/demo_data.py': 'tests/test_tools/test_make_demo_data.py',
    'projects/dual_loop_command/env.py': 'tests/test_dual_loop_command/test_environment.py',
    'projects/dual_loop_command/evaluate.py': 'tests/test_tools/test_eval_refcoco.py',
    'projects/dual_loop_command/export.py': 'tests/test_tools/test_convert_ckpt_to_hf.py',
    'projects/dual_loop_command/train.py': 'tests/test_tools/test_slips.py',
    'projects/llava_sam2/portable/released.py': 'tests/test_llava_sam2/test_weights/test_export.py',
    'tools/eval_captions.py': 'tests/test_dual_loop/test_evaluation/test_captions.py',
    'tools/train.py': 'tests/test_tools/test_train_cli.py',
}


@pytest.fixture(scope='module')
def modules(checkout) -> list[str]:
    found = sorted([*(checkout / 'projects').rglob('*.py'), *(checkout / 'tools').glob('*.py')])
    return [file.relative_to(checkout).as_posix() for file in found if has_code(file)]


def has_code(file) -> bool:
    """Not of a file that has only a docstring, imports and names, as ``__init__.py`` mostly does."""
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
               for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))))


def mirror(module: str) -> str:
    """``projects/a/b/c.py`` to ``tests/test_a/test_b/test_c.py``, ``tools/c.py`` to ``tests/test_tools/test_c.py``."""
    return 'tests/' + '/'.join(f'test_{part}' for part in module.removeprefix('projects/').split('/'))


def test_mirror():
    assert mirror('projects/a/b/c.py') == 'tests/test_a/test_b/test_c.py'
    assert mirror('tools/c.py') == 'tests/test_tools/test_c.py'


def test_every_module_has_a_test_or_says_which_one_covers_it(checkout, modules):
    assert len(modules) > 90
    without = [module for module in modules if not (checkout / mirror(module)).is_file()]
    assert without == sorted(COVERED_BY), 'these have no test of their name, those are listed in COVERED_BY'


@pytest.mark.parametrize('module', COVERED_BY)
def test_the_other_test_is_there_and_has_tests(checkout, module):
    tree = ast.parse((checkout / COVERED_BY[module]).read_text(encoding='utf-8'))
    assert any(isinstance(node, ast.FunctionDef) and node.name.startswith('test_') for node in ast.walk(tree))
