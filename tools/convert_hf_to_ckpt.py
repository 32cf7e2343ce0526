"""Write a folder in the released layout as one .pth under the official training names.

    python tools/convert_hf_to_ckpt.py HF_DIR OUT.pth

The file has every tensor of the folder, bit for bit, under the names that the training code of Sa2VA gives a model
without LoRA. A released folder has its LoRA merged, and a merge cannot be undone: the file continues a training as a
new base, it does not bring LoRA's own tensors back.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse

import torch

from dual_loop.stop import run_command
from dual_loop_command.command import Parser
from llava_sam2.paths import writing
from llava_sam2.portable.configuration import config_of_folder
from llava_sam2.portable.key_maps import released_to_training
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.weights.loading import CheckpointError, fingerprint_of, inspect
from llava_sam2.weights.sources import assemble


def convert(folder: Path, out: Path) -> int:
    """Check a released folder strictly and write it as ``out``, whole or not at all.

    Returns:
        Number of tensors.

    Raises:
        CheckpointError: the folder is damaged, or its tensors are not those of its config.json.
        FileNotFoundError, ValueError: no config.json, or one that is not of a Sa2VA model.
    """
    assembly = assemble(folder)
    with torch.device('meta'):
        network = Sa2VANetwork(config_of_folder(folder))
    faults = inspect(network, assembly).faults()
    if faults:
        raise CheckpointError(f'{folder} is not what its config.json says: {faults}. Download it again')
    # Tensors are mapped from their files; torch.save goes through them one by one.
    state = {released_to_training(name): stored.tensor() for name, stored in assembly.tensors.items()}
    meta = dict(source=folder.name, fingerprint=fingerprint_of(assembly), lora='merged')
    partial = out.with_name(out.name + '.partial')
    with writing('the checkpoint', out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(dict(state_dict=state, meta=meta), partial)
            partial.replace(out)
        finally:
            if partial.exists():
                partial.unlink()
    return len(state)


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, metavar='HF_DIR', help='folder with config.json and safetensors')
    parser.add_argument('out', type=Path, metavar='OUT.pth', help='file to write; it must not exist')
    args = parser.parse_args()
    if args.out.exists():
        print(f'convert_hf_to_ckpt: {args.out} exists; remove it or choose another name', file=sys.stderr)
        return 1
    try:
        count = convert(args.folder, args.out)
    except (OSError, ValueError) as error:
        print(f'convert_hf_to_ckpt: {error}', file=sys.stderr)
        return 1
    print(f'wrote {count} tensors to {args.out}; LoRA, if there was any, stays merged')
    return 0


if __name__ == '__main__':
    run_command(main)
