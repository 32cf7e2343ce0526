"""Which object of a scene a structured expression means, and the search for expressions that mean exactly one.

An expression is a conjunction of attributes and at most one relation. It is evaluated twice: loosely, to find every
object that a reader might take it for, and strictly, to find those it describes beyond doubt. It is used only when both
give the same one object.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from dual_loop.demo.scene import Scene, SceneObject
from dual_loop.demo.world import NAMED

DIRECTIONS = ('left', 'right', 'above', 'below')
BESIDE_MARGIN = 0.1  # least distance along the direction for a clear "left of", as a share of the shorter side
EXTREME_MARGIN = 0.05  # least lead over the runner-up for a clear "leftmost", as a share of the shorter side


@dataclass(frozen=True)
class Attributes:
    """A conjunction of attribute values; None leaves an attribute open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    accent: str | None = None

    @classmethod
    def of(cls, item: SceneObject, names: Iterable[str]) -> 'Attributes':
        """The named attributes of an object."""
        return cls(**{name: getattr(item, name) for name in names})

    def select(self, scene: Scene) -> list[int]:
        """Indices of all objects with these attributes."""
        asked = [(name, value) for name, value in vars(self).items() if value is not None]
        return [k for k, item in enumerate(scene.objects) if all(getattr(item, name) == value for name, value in asked)]


@dataclass(frozen=True)
class Beside:
    """Lies left of, right of, above or below the one object with the reference's attributes."""

    direction: str
    reference: Attributes

    def loose(self, scene: Scene, candidates: Iterable[int]) -> list[int]:
        """Candidates whose centre lies on that side at all."""
        return [k for k in candidates if self._offsets(scene, k)[0] > 0]

    def strict(self, scene: Scene, candidates: Iterable[int]) -> list[int]:
        """Candidates clearly on that side: far enough, and further along the direction than across it."""
        offsets = {k: self._offsets(scene, k) for k in candidates}
        return [k for k, (along, across) in offsets.items() if along >= max(BESIDE_MARGIN * scene.side, abs(across))]

    def _offsets(self, scene: Scene, k: int) -> tuple[float, float]:
        """Pixels from the reference's centre to object k's, along the direction and across it."""
        reference, = self.reference.select(scene)
        here, there = scene.objects[k], scene.objects[reference]
        dx, dy = here.x - there.x, here.y - there.y
        return {'left': (-dx, dy), 'right': (dx, dy), 'above': (-dy, dx), 'below': (dy, dx)}[self.direction]


@dataclass(frozen=True)
class Extreme:
    """Leftmost, rightmost, topmost or bottommost ('above', 'below') among the objects with the attributes."""

    direction: str

    def loose(self, scene: Scene, candidates: Iterable[int]) -> list[int]:
        """Candidates that lead by their centre or by their outer edge, or come within the margin of the leader."""
        chosen = set()
        for weight in (0, 1):
            leads = {k: self._lead(scene.objects[k], weight) for k in candidates}
            best = max(leads.values(), default=0)
            chosen |= {k for k, lead in leads.items() if lead > best - EXTREME_MARGIN * scene.side}
        return sorted(chosen)

    strict = loose  # the margin is already in the loose reading

    def _lead(self, item: SceneObject, weight: int) -> float:
        centre = {'left': -item.x, 'right': item.x, 'above': -item.y, 'below': item.y}[self.direction]
        return centre + weight * item.radius


@dataclass(frozen=True)
class Expression:
    """What a sentence says about its object."""

    attributes: Attributes
    relation: Beside | Extreme | None = None

    @property
    def kind(self) -> str:
        """'attribute' or 'relation'."""
        return 'attribute' if self.relation is None else 'relation'

    def identifies(self, scene: Scene) -> int | None:
        """Index of the one object the expression means, or None when it means none or could mean several."""
        candidates = self.attributes.select(scene)
        if self.relation is None:
            return candidates[0] if len(candidates) == 1 else None
        if isinstance(self.relation, Beside) and len(self.relation.reference.select(scene)) != 1:
            return None
        loose, strict = self.relation.loose(scene, candidates), self.relation.strict(scene, candidates)
        return loose[0] if len(loose) == 1 and strict == loose else None


def attribute_expressions(scene: Scene, target: int, surplus: int = 1) -> list[Expression]:
    """All attribute expressions for object ``target`` with at most ``surplus`` attributes more than the shortest needs.

    Args:
        scene: the scene.
        target: index of the object.
        surplus: how many attributes beyond the minimum are allowed.

    Returns:
        From fewest attributes to most; never empty, since no two objects of a scene look alike.
    """
    found: list[Expression] = []
    shortest = len(NAMED)
    for count in range(1, len(NAMED) + 1):
        if found and count > shortest + surplus:
            break
        for names in combinations(NAMED, count):
            expression = Expression(Attributes.of(scene.objects[target], names))
            if expression.identifies(scene) == target:
                shortest = count if not found else shortest
                found.append(expression)
    return found


def relation_expressions(scene: Scene, target: int) -> list[Expression]:
    """Relation expressions for object ``target`` that need their relation: the attributes alone fit several objects."""
    item = scene.objects[target]
    named = ((), ('shape',), ('colour',), ('colour', 'shape'), ('size', 'shape'))
    nouns = [noun for noun in (Attributes.of(item, names) for names in named) if len(noun.select(scene)) > 1]
    relations = [Extreme(direction) for direction in DIRECTIONS] + clear_neighbours(scene, target)
    expressions = [Expression(noun, relation) for noun in nouns for relation in relations]
    return [expression for expression in expressions if expression.identifies(scene) == target]


def clear_neighbours(scene: Scene, target: int) -> list[Beside]:
    """All ``Beside`` relations of object ``target`` that clearly hold, the other object by its short reference."""
    relations = []
    for other in range(len(scene.objects)):
        if other != target:
            reference = short_reference(scene, other)
            relations += [Beside(direction, reference) for direction in DIRECTIONS]
    return [relation for relation in relations if relation.strict(scene, [target])]


def short_reference(scene: Scene, target: int) -> Attributes:
    """The shortest attributes that single out object ``target``; among equals one that names the shape."""
    options = [expression.attributes for expression in attribute_expressions(scene, target, surplus=0)]
    return next((option for option in options if option.shape), options[0])
