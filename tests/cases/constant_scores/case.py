import torch

from modeling_glintru.evaluation.ranking import rank_targets

target, excluded = torch.tensor([5]), torch.zeros(1, 1, dtype=torch.long)
print(rank_targets(torch.zeros(1, 101), target, excluded))  # right: the worst rank (100), not 1
print(rank_targets(torch.full((1, 101), float("nan")), target, excluded))  # right: an error or the worst rank
