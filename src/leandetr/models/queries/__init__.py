"""Where queries come from, and the groups that are added in training only."""

from leandetr.models.queries import denoising, mixed, two_stage
from leandetr.models.queries.base import QuerySource, TrainingGroup, groups, sources

__all__ = ["QuerySource", "TrainingGroup", "denoising", "groups", "mixed", "sources", "two_stage"]
