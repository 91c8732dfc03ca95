"""What a family of checkpoints is: how its keys look, what recipe they tell, how they map."""

from collections.abc import Callable
from dataclasses import dataclass

from leandetr.checkpoints.families.facts import Facts
from leandetr.checkpoints.keymap import Rule
from leandetr.recipes.recipe import Recipe


@dataclass(frozen=True)
class Family:
    """One layout of one detector: its `name`, and the repository whose keys these are (`layout`).

    `looks_like` tells these checkpoints from others, `recipe` reads sizes and options off the keys,
    and `rules` map the keys for that recipe.
    """

    name: str
    layout: str
    looks_like: Callable[[Facts], bool]
    recipe: Callable[[Facts], Recipe]
    rules: Callable[[Recipe], list[Rule]]
