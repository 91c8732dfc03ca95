"""What each operator of PyTorch, and each of ours, multiplies and adds: one rule an operator.

`work_of` knows four kinds of operators: those that multiply and add, by a formula; those that work
on single elements; those that only move, make or compare numbers; and those that are made of
others, which are taken apart. An operator of none of these kinds fails the count with its name, if
a tensor of it is large: no work goes uncounted in silence.
"""

import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from leandetr.errors import UncountedOperator
from leandetr.ops.deform_attn import samples
from leandetr.ops.deform_attn_at import samples_at

LARGE = 4096
"""Elements of a tensor from which on an unknown operator fails the count."""


class Kind(StrEnum):
    """Kinds of work; papers differ in which of them they count."""

    CONVOLUTION = "convolution"
    PRODUCT = "matrix product"
    ATTENTION = "attention"
    INTERPOLATION = "interpolation"
    """Sampled values: four multiply-adds a channel, those of `grid_sample`."""
    WEIGHING = "weighing"
    """The weighted sum of sampled values: one multiply-add a channel."""
    KEY_INTERPOLATION = "key-aware interpolation"
    """The same as `INTERPOLATION`, in key-aware attention."""
    KEY_WEIGHING = "key-aware products"
    """Query by sampled key, and weight by sampled value: two multiply-adds a channel."""
    NORM = "norm"
    """Layer and group norm: five an element with weight and bias, as fvcore counts them."""
    ELEMENTWISE = "elementwise"
    """One an element; five for a softmax, two for a batch norm in inference (scale and shift)."""
    KEY_AGAIN = "keys sampled again"
    """Official code samples a key that is the value a second time; not computed here."""
    UNREAD = "unread"
    """What official code computes besides, for answers that nobody reads; not computed here."""


Work = tuple[Kind, int]
Rule = Callable[[tuple[Any, ...], dict[str, Any], Any], list[Work]]
"""Arguments, keyword arguments and result of a call to its multiply-adds, kind by kind."""

aten, own = torch.ops.aten, torch.ops.leandetr

INTERPOLATING = 4
NORMING = 5
SOFTMAX = 5


def work_of(
    operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> list[Work]:
    """The multiply-adds of one call. Raises `UncountedOperator` for an unknown one that is large.

    Composite operators that have no rule here are to be taken apart first (see `is_known`).
    """
    operator = _out_of_place(operator)
    packet = operator.overloadpacket
    if packet in RULES:
        return RULES[packet](args, kwargs, result)
    if packet in flop_registry:
        return [(Kind.PRODUCT, flop_registry[packet](*args, **kwargs, out_val=result) // 2)]
    if packet in MOVING or _is_view(operator):
        return []
    if _works_on_elements(operator):
        return [(Kind.ELEMENTWISE, max(_floats(args), _floats(result)))]
    largest = max((tensor.numel() for tensor in _tensors((args, kwargs, result))), default=0)
    if largest < LARGE:
        return []
    raise UncountedOperator(
        f"the operator {operator} works on {largest} elements and there is no rule for its "
        "multiply-adds, so the count would be wrong; register one with "
        "torch.utils.flop_counter.register_flop_formula, or add it to "
        "leandetr/evaluation/operators.py"
    )


def is_known(operator: Any) -> bool:
    """Whether `work_of` has a rule for the operator as it is, without taking it apart."""
    operator = _out_of_place(operator)
    packet = operator.overloadpacket
    known = packet in RULES or packet in flop_registry or packet in MOVING
    return known or _is_view(operator) or _works_on_elements(operator)


def _out_of_place(operator: Any) -> Any:
    """`relu` for `relu_`: what writes over its input does the same work."""
    namespace, name = operator._schema.name.split("::")
    plain = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    return getattr(plain, operator._overloadname, operator)


def _works_on_elements(operator: Any) -> bool:
    """PyTorch marks most of these itself."""
    return torch.Tag.pointwise in operator.tags or operator.overloadpacket in REDUCING


def _is_view(operator: Any) -> bool:
    """Whether all that comes out is a view of what went in."""
    returns = operator._schema.returns
    aliases = [one.alias_info for one in returns]
    return bool(returns) and all(one is not None and not one.is_write for one in aliases)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _floats(values: Any) -> int:
    """Elements of the largest tensor that holds fractions: masks and indices are not counted."""
    sizes = [tensor.numel() for tensor in _tensors(values) if tensor.is_floating_point()]
    return max(sizes, default=0)


def _first(result: Any) -> Tensor:
    return next(_tensors(result))


def _linear(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    """Every output is a sum over the last axis of the first matrix."""
    return [(Kind.PRODUCT, result.numel() * args[0].shape[-1])]


def _added(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    """Products with a bias, which comes first."""
    return [(Kind.PRODUCT, result.numel() * args[1].shape[-1])]


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    """Every output is a sum over the kernel and the input channels of its group."""
    weight = args[1]
    transposed = any(flag is True for flag in args[6:7])
    inputs = args[0].numel() if transposed else result.numel()
    return [(Kind.CONVOLUTION, inputs * math.prod(weight.shape[1:]))]


def _attention(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    """Every query by every key, and every weight by every value, causal or not."""
    query, key, value = args[:3]
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    products = pairs * (query.shape[-1] + value.shape[-1])
    return [(Kind.ATTENTION, products), (Kind.ELEMENTWISE, SOFTMAX * pairs)]


def _softmax(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    return [(Kind.ELEMENTWISE, SOFTMAX * result.numel())]


def _norm(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    elements = _first(result).numel()
    weighed = any(isinstance(value, Tensor) for value in args[1:])
    return [(Kind.NORM, (NORMING if weighed else NORMING - 1) * elements)]


def _batch_norm(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    """With fixed statistics: a scale and a shift."""
    return [(Kind.ELEMENTWISE, 2 * _first(result).numel())]


def _grid_sample(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    return [(Kind.INTERPOLATION, INTERPOLATING * result.numel())]


def _plain(sampled: int, weights: int, moves: int) -> list[Work]:
    """Deformable attention: `weights` logits and `moves` coordinates are worked out inside."""
    inside = SOFTMAX * weights + 2 * moves
    return [
        (Kind.INTERPOLATION, INTERPOLATING * sampled),
        (Kind.WEIGHING, sampled),
        (Kind.ELEMENTWISE, inside),
    ]


def _key_aware(sampled: int, channels: int, shared: bool, moves: int) -> list[Work]:
    """Key-aware attention; where the value is the key, official code samples it twice."""
    once = 1 if shared else 2
    return [
        (Kind.KEY_INTERPOLATION, once * INTERPOLATING * sampled),
        (Kind.KEY_WEIGHING, 2 * sampled),
        (Kind.ELEMENTWISE, SOFTMAX * sampled // channels + 2 * moves),
        (Kind.KEY_AGAIN, (2 - once) * INTERPOLATING * sampled),
    ]


def _deform(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    value, _, locations, _ = args
    return _plain(samples(locations.shape, value.shape), 0, 0)


def _deform_at(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    value, _, reference, offsets, logits = args
    sampled = samples_at(offsets.shape, reference.shape, value.shape)
    return _plain(sampled, logits.numel(), offsets.numel())


def _key(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    _, key, value, _, locations = args
    return _key_aware(samples(locations.shape, value.shape), value.shape[-1], key is None, 0)


def _key_at(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[Work]:
    _, key, value, _, reference, offsets = args
    sampled = samples_at(offsets.shape, reference.shape, value.shape)
    return _key_aware(sampled, value.shape[-1], key is None, offsets.numel())


def _packets(names: str) -> list[Any]:
    """The operators of these names, as far as this PyTorch has them."""
    return [getattr(aten, name) for name in names.split() if hasattr(aten, name)]


RULES: dict[Any, Rule] = {
    **dict.fromkeys(_packets("linear mm bmm dot vdot mv"), _linear),
    **dict.fromkeys(_packets("addmm baddbmm addmv _addmm_activation"), _added),
    **dict.fromkeys(
        _packets("conv1d conv2d conv3d convolution _convolution mkldnn_convolution"), _convolution
    ),
    **dict.fromkeys(
        _packets(
            "scaled_dot_product_attention _scaled_dot_product_flash_attention "
            "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
            "_scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
            "_scaled_dot_product_fused_attention_overrideable"
        ),
        _attention,
    ),
    **dict.fromkeys(_packets("softmax _softmax log_softmax _log_softmax"), _softmax),
    **dict.fromkeys(
        _packets("layer_norm native_layer_norm group_norm native_group_norm rms_norm"), _norm
    ),
    **dict.fromkeys(
        _packets("batch_norm native_batch_norm _native_batch_norm_legit_no_training"), _batch_norm
    ),
    **dict.fromkeys(_packets("grid_sampler grid_sampler_2d grid_sampler_3d"), _grid_sample),
    own.deform_attn: _deform,
    own.deform_attn_at: _deform_at,
    own.key_aware_attn: _key,
    own.key_aware_attn_at: _key_at,
}
"""Operators that multiply and add, or whose elements cost more than one."""

REDUCING = set(
    _packets(
        "sum mean amax amin max min prod var std var_mean std_mean cumsum cumprod norm any all "
        "logsumexp argmax argmin linalg_vector_norm avg_pool2d adaptive_avg_pool2d "
        "_adaptive_avg_pool2d max_pool2d max_pool2d_with_indices upsample_nearest2d "
        "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
    )
)
"""Reductions, poolings and resizings: one an element of what goes in or comes out."""

MOVING = set(
    _packets(
        "_to_copy _unsafe_view arange argsort as_strided bernoulli bincount cat chunk clone "
        "constant_pad_nd contiguous copy detach dropout embedding empty empty_like empty_strided "
        "expand_as eye fill flatten flip full full_like gather im2col index index_put "
        "index_select linspace masked_select meshgrid narrow new_empty new_empty_strided new_full "
        "new_ones new_zeros nonzero one_hot ones ones_like pad pixel_shuffle pixel_unshuffle "
        "promote_types rand randn repeat repeat_interleave reshape roll scatter searchsorted "
        "slice_scatter sort stack take_along_dim to topk tril triu unflatten unique where zeros "
        "zeros_like"
    )
)
"""Operators that make, move, pick, order or copy numbers, and so multiply nothing."""
