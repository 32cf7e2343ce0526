"""The interpreter and the packages that the project needs, before anything of them is imported.

Any Python 3 can read this file: it says that another one is needed.
"""
import importlib.util
import os
import sys

#: Without these nothing works; requirements/lock.txt has them all, with what trains.
NEEDED = ('torch', 'torchvision', 'mmengine', 'transformers', 'peft', 'safetensors', 'cv2', 'pycocotools', 'PIL')


def require_python():
    """End with one line, and status 1, under a Python that the locked versions are not made for."""
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        sys.exit('dual-loop needs Python 3.11 or 3.12, and {} is {}.{}: run `bash tools/install.sh` in the checkout, '
                 'which finds one, then `source .venv/bin/activate`'.format(sys.executable, *sys.version_info[:2]))


def missing():
    """Names of the needed packages that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def require_environment():
    """End with one line, and status 1, outside the environment of the project; else settle how its threads wait.

    They sleep, unless OMP_WAIT_POLICY says otherwise. Spinning, they take the cores from whatever else runs, and beside
    two busy processes a step of the tiny model took nine times as long.
    """
    require_python()
    absent = missing()
    if absent:
        sys.exit('dual-loop: {} not installed beside {}: run `bash tools/install.sh` in the checkout, then `source '
                 '.venv/bin/activate`, or activate the environment that you use'.format(
                     ', '.join(absent) + (' is' if len(absent) == 1 else ' are'), sys.executable))
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
