"""Count what every preset costs and write src/leandetr/recipes/costs.json: `make costs`."""

import json
import sys

from leandetr.evaluation.cost import cost
from leandetr.recipes.assemble import list_models, recipe
from leandetr.recipes.overview import COSTS


def main() -> None:
    """One entry a preset: parameters, and billions of multiply-adds at its usual size."""
    counted = {}
    for name in list_models():
        found = cost(recipe(name))
        counted[name] = {"parameters": found.parameters, "gmacs": round(found.gmacs, 3)}
        sys.stderr.write(f"{name}: {counted[name]}\n")
    COSTS.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
