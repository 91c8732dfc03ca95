"""Numerics: one public function an operator, backends behind it."""

from leandetr.ops.backend import available_backends, use_backend
from leandetr.ops.deform_attn import deform_attn
from leandetr.ops.key_aware_attn import key_aware_attn

__all__ = ["available_backends", "deform_attn", "key_aware_attn", "use_backend"]
