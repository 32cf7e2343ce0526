"""Models to evaluate: from an exported folder, or from a config and a checkpoint, with the same result."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dual_loop.checkpoints.files import Trained, check_form, read_trained
from dual_loop.checkpoints.trained_model import EXPORTED_DTYPES, build, check_base, select
from dual_loop.config_files import read_config
from llava_sam2.download import download_command
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.portable.chat import Sa2VAChatModel
from llava_sam2.portable.configuration import config_of_folder
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.released import fill_from, plan_release
from llava_sam2.portable.static_decoding import KeptDecoder
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import load_tokenizer
from llava_sam2.weights.export import release_of
from llava_sam2.weights.fingerprint import Fingerprint

from .predictor import Predictor


@dataclass
class Loaded:
    """A model that is ready to answer.

    Attributes:
        network: without LoRA beside its weights, in evaluation mode.
        vocabulary: tables of its tokenizer.
        description: ``name``, ``fingerprint`` of the weights as they are evaluated, ``checkpoint`` (None for a folder
            and for the base weights of a config), ``step`` of it, ``averages``, ``parts`` (None for a
            folder) and ``dtype``.
        decoder: decodes its answers; None decodes plainly.
    """

    network: Sa2VANetwork
    vocabulary: Vocabulary
    description: dict[str, Any]
    decoder: KeptDecoder | None = field(default_factory=KeptDecoder)

    def predictor(self) -> Predictor:
        """Asks the model."""
        return Predictor(self.network, self.vocabulary, decoder=self.decoder)


def load_model(
    model: str | Path,
    checkpoint: str | Path | None = None,
    ema: bool = False,
    dtype: str | None = None,
    device: torch.device | str = 'cpu',
    parts: str = 'full',
    base: str | None = None,
) -> Loaded:
    """Load an exported or released folder, or put a checkpoint of a config together as the export does.

    The folder and the checkpoint that it was exported from give the same network, bit for bit, if the folder's type is
    ``dtype``. Of a config without a checkpoint the base weights are loaded: what training starts from.

    Args:
        model: folder, or config file (.py).
        checkpoint: of a run of the config.
        ema: the averages (the teacher) instead of the trained weights.
        dtype: a key of ``EXPORTED_DTYPES``, of the weights; None for what config.json says, or the base model of the
            config.
        device: of the network.
        parts: a key of ``EXPORTED_PARTS``, what to take of the checkpoint.
        base: folder of the base weights, if not the one in the config.

    Raises:
        FileNotFoundError: no such folder, config, checkpoint or tokenizer.
        ValueError: a checkpoint beside a folder, one that does not fit the config, random weights, or a tokenizer
            without ``[SEG]``.
    """
    path = check_choice(model, checkpoint, ema, parts, base)
    if path.is_dir():
        return _from_folder(path, dtype, device)
    return _from_config(path, checkpoint, ema, dtype, device, parts, base)


def check_choice(model: str | Path, checkpoint: str | Path | None = None, ema: bool = False, parts: str = 'full',
                 base: str | None = None) -> Path:
    """Refuse what :func:`load_model` cannot load, as far as that is seen without reading weights.

    Returns:
        ``model`` as a path.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_model`.
    """
    path = Path(model)
    if not path.exists():
        raise FileNotFoundError(f'{model} does not exist: give the folder of a model, or a config and a checkpoint; '
                                f'released weights come by `{download_command(path)}`')
    if path.is_dir():
        if checkpoint is not None or ema or parts != 'full' or base is not None:
            raise ValueError(f'{model} is a folder with weights of its own: a checkpoint, averages, parts or a base '
                             'can be chosen only beside a config file')
        if not (path / 'config.json').is_file():
            raise FileNotFoundError(f'{path} is no folder of a model: it has no config.json')
    elif path.suffix != '.py':
        raise ValueError(f'{model} is neither a folder nor a config file (.py)')
    elif checkpoint is not None:
        check_form(Path(checkpoint))
    elif ema or parts != 'full':
        raise ValueError(f'averages or parts of what? Give a checkpoint after {model}')
    return path


def _from_folder(folder: Path, dtype: str | None, device: torch.device | str) -> Loaded:
    config_of_folder(folder)  # refuses another kind of model, whatever else it lacks
    tokenizer = load_tokenizer(folder.absolute())
    network = Sa2VAChatModel.from_pretrained(folder, dtype=EXPORTED_DTYPES[dtype] if dtype else 'auto',
                                             device_map=device)
    vocabulary = Vocabulary(tokenizer, network.config.llm_config.vocab_size, network.config.chat_template)
    return Loaded(network, vocabulary, _description(network, folder.absolute().name))


def _from_config(config: Path, checkpoint: str | Path | None, ema: bool, dtype: str | None,
                 device: torch.device | str, parts: str, base_folder: str | None) -> Loaded:
    trained = None if checkpoint is None else read_trained(checkpoint)
    model, base = build(read_config(config), base_folder)
    if trained is not None:
        check_base(trained, base, str(checkpoint))
        model.load_state_dict(select(trained, model, parts, ema, str(checkpoint)), strict=False)
    elif base.random_weights:
        raise ValueError(f'{config} starts from random weights: give a checkpoint of it')
    network = exported_network(base, EXPORTED_DTYPES[dtype] if dtype else base.dtype, torch.device(device),
                        str(checkpoint or config))
    names = [config.stem, Path(checkpoint).stem if checkpoint else 'base', 'ema' if ema else '',
             '' if parts == 'full' else parts]
    description = _description(network, '_'.join(filter(None, names)), checkpoint, trained, ema, parts)
    return Loaded(network, base.vocabulary, description)


@torch.no_grad()
def exported_network(base: VideoLLaVASAMModel, dtype: torch.dtype, device: torch.device, source: str
                     ) -> Sa2VAChatModel:
    """The network that loading the export would give, without the way through files."""
    with torch.device('meta'):
        network = Sa2VAChatModel(base.config)
    network.carried = fill_from(network, release_of(base.network, dtype), dtype, device, source)
    return network.eval()


def _description(network: Sa2VANetwork, name: str, checkpoint: str | Path | None = None, trained: Trained | None = None,
                 averages: bool = False, parts: str | None = None) -> dict[str, Any]:
    return dict(
        name=name, fingerprint=_fingerprint(network), checkpoint=Path(checkpoint).name if checkpoint else None,
        step=trained.step if trained else None, averages=averages, parts=parts,
        dtype=next((key for key, value in EXPORTED_DTYPES.items() if value == network.dtype), str(network.dtype)),
    )


def _fingerprint(network: Sa2VANetwork) -> str:
    """Of the weights under their released names, in the type in which they are evaluated."""
    plan, result = plan_release(network), Fingerprint()
    for name in sorted(plan):
        result.update(name, plan[name].tensor().detach())
    return result.hexdigest()
