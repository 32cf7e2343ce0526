"""What is in each scene of a source: ``scenes.jsonl`` in its folder, a line per scene, for exact evaluation.

A line is an object with ``scene`` (its number), ``world``, ``width`` and ``height`` (pixels), ``background`` and
``objects``, back to front: each has ``name`` (what the source calls it, null for one that it does not list), ``box``
([x, y, width, height] in pixels, of what is visible), ``visible`` (share of its area) and its ``shape``, ``colour``,
``size``, ``texture`` and ``accent`` (null for a plain one).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dual_loop.demo.masks import mask_box
from dual_loop.demo.rendering import Drawn
from dual_loop.demo.world import NAMED, World

SCENES = 'scenes.jsonl'


def scene_truth(number: int, world: World, drawn: Drawn, names: Mapping[int, str]) -> dict[str, Any]:
    """The line of a scene; ``names`` has the names of the objects that the source lists, by their index."""
    objects = [
        dict(name=names.get(k), box=mask_box(mask), visible=round(float(visible), 4),
             **{key: getattr(item, key) for key in (*NAMED, 'accent')})
        for k, (item, mask, visible) in enumerate(zip(drawn.scene.objects, drawn.masks, drawn.visible, strict=True))]
    return dict(scene=number, world=world.name, width=drawn.scene.width, height=drawn.scene.height,
                background=drawn.scene.background, objects=objects)


def write_scenes(folder: Path, scenes: Iterable[Mapping]) -> None:
    """Write the lines of all scenes of a source."""
    with open(folder / SCENES, 'w') as file:
        file.writelines(f'{json.dumps(scene)}\n' for scene in scenes)


def read_objects(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Objects of a source by their names; none where the folder has no ``scenes.jsonl``, as other data.

    Raises:
        ValueError: the file is damaged.
    """
    file = Path(folder) / SCENES
    if not file.is_file():
        return {}
    try:
        scenes = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
        return {item['name']: item for scene in scenes for item in scene['objects'] if item['name'] is not None}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is no list of scenes ({error!r}): remove the folder of the demo data, which is made '
                         'anew on its next use') from error
