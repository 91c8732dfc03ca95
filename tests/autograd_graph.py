"""What autograd will do on its way back."""

from torch import Tensor


def graph(result: Tensor) -> set[str]:
    """Names of all nodes between a result and what it was made of."""
    names, seen, ahead = set(), set(), [result.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.add(node.name())
        ahead += [before for before, _ in node.next_functions]
    return names
