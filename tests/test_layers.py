"""Imports run one way: from a layer to those below it, and never in a circle. Imports inside functions count too."""

import ast
import sys
from collections.abc import Iterator

# From the top; what stands in one line is side by side and does not import each other.
DUAL_LOOP = [['registered'], ['estimate'], ['benchmark', 'proof'], ['engine', 'demo_page'], ['evaluation'],
             ['visualization', 'checkpoints'], ['models', 'datasets', 'demo']]
LLAVA_SAM2 = [['model'], ['batches', 'compiled_layers', 'dropout', 'initialisation', 'losses', 'precision', 'text_rows',
                          'trainable'], ['weights'],
              ['tokenizer'], ['portable']]
# Import nothing of the project but each other, so that everything but portable may import them.
LEAVES = ['dual_loop.config_files', 'dual_loop.loop_names', 'dual_loop.process_pool', 'dual_loop.refusals',
          'dual_loop.stop', 'llava_sam2.claims', 'llava_sam2.cores', 'llava_sam2.download', 'llava_sam2.paths',
          'llava_sam2.philox_kernel', 'llava_sam2.progress', 'llava_sam2.randomness']
LAYERS = [*([f'dual_loop.{name}' for name in layer] for layer in DUAL_LOOP),
          *([f'llava_sam2.{name}' for name in layer] for layer in LLAVA_SAM2)]
ALLOWED = {
    # Library faults are mended when the package is imported, before anything of it is used.
    ('dual_loop', 'dual_loop.engine.compat'),
}
# Arrows back that are there today; none is to be added.
KNOWN: set[tuple[str, str]] = set()


def unit(module: str) -> str:
    return '.'.join(module.split('.')[:2])


def imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Full names of what is imported, the names taken from a module included."""
    for_annotations = {id(node) for branch in ast.walk(tree)
                       if isinstance(branch, ast.If) and ast.unparse(branch.test) == 'TYPE_CHECKING'
                       for node in ast.walk(branch)}
    for node in ast.walk(tree):
        if id(node) in for_annotations:  # never run
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (f'{base}.{alias.name}' for alias in node.names)


def arrows(projects) -> set[tuple[str, str]]:
    """Pairs of modules of the project of which the first imports the second."""
    files = {}
    for path in sorted(projects.rglob('*.py')):
        parts = path.relative_to(projects).with_suffix('').parts
        files['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    found = set()
    for module, path in files.items():
        package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
        for name in imported(ast.parse(path.read_text()), package):
            while name and name not in files:
                name = name.rpartition('.')[0]
            if name and name != module:
                found.add((module, name))
    return found


def test_every_part_has_its_layer(checkout):
    parts = {f'{folder}.{path.stem}' for folder in ('dual_loop', 'llava_sam2')
             for path in (checkout / 'projects' / folder).iterdir() if not path.name.startswith(('_', '.', 'py.'))}
    assert parts == {*sum(LAYERS, []), *LEAVES}


def test_no_arrow_back(checkout):
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    back = set()
    for module, other in arrows(checkout / 'projects') - ALLOWED:
        if module.startswith('dual_loop_command.'):  # above all; nothing but tools imports it
            continue
        above, below = unit(module), unit(other)
        if above == below or other == 'dual_loop':  # its version; the package itself is there before any part of it
            continue
        allowed = above != 'llava_sam2.portable' if below in LEAVES else \
            above in rank and below in rank and rank[above] < rank[below]
        if not allowed:
            back.add((module, other))
    assert back == KNOWN


def test_no_circle(checkout):
    imports: dict[str, set[str]] = {}
    for module, other in arrows(checkout / 'projects') - ALLOWED:
        imports.setdefault(module, set()).add(other)
    while True:  # take away what imports nothing that is left
        done = {other for others in imports.values() for other in others} - imports.keys()
        left = {module: others - done for module, others in imports.items() if others - done}
        if left == imports:
            break
        imports = left
    assert not imports, 'these import each other, or what does'


def test_commands_are_light(checkout):
    """At import: what they act with is imported in functions. docs, configs and the parsers of tools/ rely on it."""
    for file in (checkout / 'projects/dual_loop_command').glob('*.py'):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):  # what functions import does not count
            if isinstance(node, ast.FunctionDef):
                node.body = []
        heavy = {name.split('.')[0] for name in imported(tree, ['dual_loop_command'])} - sys.stdlib_module_names
        assert heavy <= {'dual_loop_command', 'llava_sam2'}, file


def test_an_arrow_back_is_seen(tmp_path):
    (tmp_path / 'dual_loop' / 'models').mkdir(parents=True)
    (tmp_path / 'dual_loop' / 'engine.py').write_text('')
    (tmp_path / 'dual_loop' / 'models' / '__init__.py').write_text('')
    (tmp_path / 'dual_loop' / 'models' / 'late.py').write_text('def run():\n    from ..engine import loop\n')
    assert arrows(tmp_path) == {('dual_loop.models.late', 'dual_loop.engine')}
