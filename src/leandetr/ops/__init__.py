"""Numerics: one public function an operator, backends behind it."""

from leandetr.ops import cpu, gpu
from leandetr.ops.backend import available_backends, use_backend
from leandetr.ops.deform_attn import deform_attn
from leandetr.ops.deform_attn_at import deform_attn_at
from leandetr.ops.key_aware_attn import key_aware_attn
from leandetr.ops.key_aware_attn_at import key_aware_attn_at

__all__ = [
    "available_backends",
    "deform_attn",
    "deform_attn_at",
    "key_aware_attn",
    "key_aware_attn_at",
    "use_backend",
]

cpu.register()
gpu.register()
