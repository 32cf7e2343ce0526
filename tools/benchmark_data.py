"""Measure how fast the data are made, and how exact the pictures are.

    python tools/benchmark_data.py loader
    python tools/benchmark_data.py loader --photos FOLDER      # differences on real photographs as well
    python tools/benchmark_data.py loader --size 3000 4500     # large originals, decoding at half scale as well

Everything runs in one thread, the ways in turn, so that other work on the machine slows all of them alike.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pycocotools import mask as coco
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dual_loop.datasets import SA1BDataset, collate_samples
from dual_loop.datasets.images import decode_image, read_bytes
from dual_loop.datasets.masks import area_mask, decode_segmentation
from dual_loop.datasets.sa1b import read_annotations
from dual_loop.stop import run_command
from dual_loop_command.command import Parser
from llava_sam2.portable.image_processing import IMAGENET_MEAN, IMAGENET_STD, grounding_pixels, vision_pixels
from llava_sam2.portable.regions import region_grid

OBJECTS = 100  # masks of a picture, about as many as SA-1B has
QUALITY = 90  # of the JPEG files


# What is measured ----------------------------------------------------------------------------------------------------

def opened(data: bytes, half: bool = False) -> Image.Image:
    """RGB the way a viewer shows it, by PIL; ``half`` lets libjpeg decode at half scale."""
    picture = Image.open(io.BytesIO(data))
    if half:
        picture.draft('RGB', (picture.width // 2, picture.height // 2))
    ImageOps.exif_transpose(picture, in_place=True)
    return picture.convert('RGB')


def plain(data: bytes, vision: int, grounding: int, kernel: InterpolationMode) -> tuple[torch.Tensor, torch.Tensor]:
    """Both pictures the straightforward way: PIL and torchvision's usual transforms."""
    picture = opened(data)
    for_vision = transforms.Compose([transforms.Resize((vision, vision), InterpolationMode.BICUBIC),
                                     transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    for_grounding = transforms.Compose([transforms.Resize((grounding, grounding), kernel), transforms.ToTensor()])
    return for_vision(picture), for_grounding(picture) * 255


def ours(data: bytes, vision: int, grounding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both pictures as the data sets make them."""
    image = decode_image(data, 'picture')
    return vision_pixels(image, vision), grounding_pixels(image, grounding)


def half_scale(data: bytes, vision: int, grounding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both pictures from libjpeg's decoding at half scale, which the data sets do not use."""
    image = torch.from_numpy(np.array(opened(data, half=True))).permute(2, 0, 1)
    return vision_pixels(image, vision), grounding_pixels(image, grounding)


def exact(data: bytes, size: int) -> np.ndarray:
    """(3, size, size) float32 in 0..255: antialiased bicubic resize of each channel in floating point, by PIL."""
    channels = np.asarray(opened(data), np.float32).transpose(2, 0, 1)
    resized = [Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC) for each in channels]
    return np.stack([np.asarray(each) for each in resized]).clip(0, 255)


def grey_levels(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures in 0..255 again."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pair[0] * std + mean) * 255).numpy(), pair[1].float().numpy()


def sample_parts(dataset: SA1BDataset, index: int) -> dict[str, Callable]:
    """The steps of one sample, each on what the one before it gave."""
    path = dataset.path(index)
    annotation_file = path.with_suffix('.json')
    data = read_bytes(path)
    image = decode_image(data, path)
    height, width = image.shape[1:]
    code = read_annotations(annotation_file)[1][dataset.index['position'][index]]['segmentation']
    mask = decode_segmentation(code, height, width, path)
    return {
        'read the picture file': lambda: read_bytes(path),
        'decode the picture': lambda: decode_image(data, path),
        'picture for vision': lambda: vision_pixels(image, dataset.image_size),
        'picture for grounding': lambda: grounding_pixels(image, dataset.grounding_size),
        'read the annotation file': lambda: read_annotations(annotation_file),
        'decode the mask': lambda: decode_segmentation(code, height, width, path),
        'region grid': lambda: region_grid(torch.from_numpy(mask), dataset.region_grid),
        'target mask': lambda: area_mask(mask, dataset.grounding_size),
        'whole sample': lambda: dataset[index],
    }


def in_turn(items: list[dict[str, Callable]], repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds (minimum, median over the repeats; mean over the items) of each way.

    Every repeat runs every way of every item once; a first one warms up and does not count.
    """
    seconds = {name: np.zeros((repeats + 1, len(items))) for name in items[0]}
    for repeat in range(repeats + 1):
        for number, ways in enumerate(items):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name][repeat, number] = time.perf_counter() - start
    return {name: (1000 * each[1:].min(axis=0).mean(), 1000 * np.median(each[1:], axis=0).mean())
            for name, each in seconds.items()}


# Made data -----------------------------------------------------------------------------------------------------------

def photograph(height: int, width: int, generator: torch.Generator) -> np.ndarray:
    """(height, width, 3) uint8: noise of many scales, the coarse ones strongest, as in photographs."""
    picture = torch.full((1, 3, height, width), 120.)
    for cell, strength in ((height // 4, 90), (height // 16, 50), (height // 64, 25), (6, 12), (2, 8)):
        cell = max(cell, 2)
        noise = torch.randn(1, 3, -(-height // cell), -(-width // cell), generator=generator)
        picture += strength * F.interpolate(noise, size=(height, width), mode='bicubic')
    return picture[0].clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def write_sa1b(folder: Path, images: int, height: int, width: int) -> list[Path]:
    """A small SA-1B: pictures with ellipses of all sizes as masks. Returns the picture files."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    folder.mkdir(parents=True)
    files = [folder / f'sa_{number}.jpg' for number in range(1, images + 1)]
    for file in files:
        Image.fromarray(photograph(height, width, generator)).save(file, quality=QUALITY)
        annotations = []
        for identity in range(OBJECTS):
            mask = np.zeros((height, width), np.uint8)
            axes = np.maximum(1, height * 10 ** rng.uniform(-2, -0.5, 2)).astype(int).tolist()
            centre = rng.integers(0, (width, height)).tolist()
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            code = coco.encode(np.asfortranarray(mask))
            annotations.append(dict(
                id=identity, bbox=coco.toBbox(code).tolist(), area=int(coco.area(code)),
                segmentation=dict(size=[height, width], counts=code['counts'].decode())))
        content = dict(image=dict(width=width, height=height, file_name=file.name), annotations=annotations)
        file.with_suffix('.json').write_text(json.dumps(content))
    return files


# Reports -------------------------------------------------------------------------------------------------------------

def loader(args: argparse.Namespace) -> None:
    """Time and exactness of the pictures, time of a whole SA-1B sample by parts, samples a second of a DataLoader."""
    files = sorted(args.photos.rglob('*')) if args.photos else []
    photos = [file for file in files if file.suffix.lower() in ('.jpg', '.jpeg')]
    if args.photos and not photos:
        raise FileNotFoundError(f'{args.photos} (from --photos) has no .jpg file')
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sizes = args.image_size, args.grounding_size
    with tempfile.TemporaryDirectory() as folder:
        files = write_sa1b(Path(folder) / 'data' / 'sa_000000', args.images, *args.size)
        report_pictures('made, {} x {}'.format(*args.size), files, sizes, args.repeats)
        if photos:
            report_pictures(f'photographs, {len(photos)} files', photos, sizes, args.repeats)
        dataset = SA1BDataset(Path(folder) / 'data', image_size=sizes[0], grounding_size=sizes[1],
                              index_dir=Path(folder) / 'indexes')
        report_sample(dataset, args.images, args.repeats)
        report_throughput(dataset, args.workers, args.samples)


def report_pictures(title: str, files: list[Path], sizes: tuple[int, int], repeats: int) -> None:
    pictures = [file.read_bytes() for file in files]
    ways: dict[str, Callable] = {
        'plain': lambda data: plain(data, *sizes, InterpolationMode.BICUBIC),
        f'plain, bilinear {sizes[1]}': lambda data: plain(data, *sizes, InterpolationMode.BILINEAR),
        'ours': lambda data: ours(data, *sizes)}
    if all(min(Image.open(file).size) >= 2 * sizes[1] for file in files):
        ways['decoded at half scale'] = lambda data: half_scale(data, *sizes)
    times = in_turn([{name: (lambda way=way, data=data: way(data)) for name, way in ways.items()}
                     for data in pictures], repeats)
    megabytes = sum(map(len, pictures)) / len(pictures) / 1e6
    print(f'\npictures ({title}, {megabytes:.2f} MB a file): ms a picture, one thread')
    print(f'{"":26}{"min":>8}{"median":>8}{"ours is faster by":>20}')
    for name, (least, median) in times.items():
        print(f'{name:26}{least:8.1f}{median:8.1f}{least / times["ours"][0]:20.2f}')
    print('difference to an antialiased bicubic resize in floating point, grey levels (last column: after rounding)')
    print(f'{"":26}{"size":>8}{"max":>8}{"99.9 %":>8}{"share above 1":>20}{"max, rounded":>14}')
    del ways[f'plain, bilinear {sizes[1]}']
    for name, which, difference, rounded in differences(ways, pictures, sizes):
        print(f'{name:26}{sizes[which]:8}{difference.max():8.2f}{np.percentile(difference, 99.9):8.2f}'
              f'{(difference > 1).mean():20.1e}{rounded.max():14.0f}')


def differences(ways: dict[str, Callable], pictures: list[bytes],
                sizes: tuple[int, int]) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """(name, 0 for vision or 1 for grounding, differences, rounded differences of all pictures) of each way.

    Last comes ours against the plain way.
    """
    for which, size in enumerate(sizes):
        made = {name: np.stack([grey_levels(way(data))[which] for data in pictures]) for name, way in ways.items()}
        correct = np.stack([exact(data, size) for data in pictures])
        pairs = [(name, levels, correct) for name, levels in made.items()]
        for name, levels, other in [*pairs, ('ours against plain', made['ours'].round(), made['plain'].round())]:
            yield name, which, np.abs(levels - other), np.abs(levels.round() - other.round())


def report_sample(dataset: SA1BDataset, images: int, repeats: int) -> None:
    # Neighbours are of different pictures: the data set keeps the last annotation file.
    rows = [image * OBJECTS + position for position in range(0, OBJECTS, OBJECTS // 4) for image in range(images)]
    times = in_turn([sample_parts(dataset, row) for row in rows], repeats)
    print(f'\nSA-1B sample ({OBJECTS} masks a picture, files in the page cache): ms, one thread')
    print(f'{"":26}{"min":>8}{"median":>8}')
    for name, (least, median) in times.items():
        print(f'{name:26}{least:8.2f}{median:8.2f}')


def report_throughput(dataset: SA1BDataset, workers: list[int], samples: int) -> None:
    order = np.random.default_rng(0).permutation(len(dataset))[:samples].tolist()
    print('\nDataLoader over SA-1B samples, batches of 2, from the first batch on')
    print(f'{"workers":>8}{"samples/s":>12}{"MB a sample":>14}')
    for number in workers:
        batches = iter(DataLoader(dataset, batch_size=2, sampler=order, num_workers=number,
                                  collate_fn=collate_samples, worker_init_fn=_one_thread))
        next(batches)
        start, done, size = time.perf_counter(), 0, 0
        for batch in batches:
            done += len(batch['captions'])
            size += sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
        print(f'{number:8}{done / (time.perf_counter() - start):12.1f}{size / done / 1e6:14.2f}')


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)


def main(argv=None) -> int:
    """Parse the command line and measure; returns the exit status."""
    parser = Parser(description='Measure how fast the data are made.')
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('loader', help='pictures, a whole SA-1B sample, and a DataLoader')
    command.add_argument('--photos', type=Path, help='folder of real .jpg files to measure the pictures with as well')
    command.add_argument('--size', type=int, nargs=2, default=(1500, 2250), metavar=('HEIGHT', 'WIDTH'),
                         help='of the made pictures (default: 1500 2250)')
    command.add_argument('--images', type=int, default=4, help='made pictures, at least 2 (default: %(default)s)')
    command.add_argument('--repeats', type=int, default=10, help='default: %(default)s')
    command.add_argument('--image-size', type=int, default=448, help='S, vision encoder (default: %(default)s)')
    command.add_argument('--grounding-size', type=int, default=1024, help='G (default: %(default)s)')
    command.add_argument('--workers', type=int, nargs='+', default=[1, 2], help='of the DataLoader (default: 1 2)')
    command.add_argument('--samples', type=int, default=200, help='of the DataLoader (default: %(default)s)')
    command.set_defaults(run=loader)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        print(f'benchmark_data: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    run_command(main)
