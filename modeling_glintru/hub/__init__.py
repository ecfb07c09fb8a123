"""Room 5, the Hub: a model folder or a data set becomes a repository, with a card that a stranger can trust."""

from .card import write_card
from .dataset import push_interactions
from .endpoint import write_handler
from .push import PushPlan, plan_push, push_folder

__all__ = ["PushPlan", "plan_push", "push_folder", "push_interactions", "write_card", "write_handler"]
