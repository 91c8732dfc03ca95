"""What the figures were measured on."""

from leandetr.evaluation.machine import describe, processor

__all__ = ["describe", "processor"]
