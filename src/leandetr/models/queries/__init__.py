"""Where queries come from, and the groups that are added in training only."""

from leandetr.models.queries import denoising, hybrid, learned, mixed, points, two_stage
from leandetr.models.queries.base import QuerySource, TrainingGroup, groups, sources

__all__ = [
    "QuerySource",
    "TrainingGroup",
    "denoising",
    "groups",
    "hybrid",
    "learned",
    "mixed",
    "points",
    "sources",
    "two_stage",
]
