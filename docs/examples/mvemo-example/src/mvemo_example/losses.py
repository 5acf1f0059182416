"""Focal loss (Lin et al. 2017, eq. 5), which gives hard clips more weight."""

from torch.nn import functional

from mvemo.extract import Loss

GAMMA = 2.0


class FocalLoss(Loss):
    """Mean of -(1 - p)^gamma log p, with the probability p of the true class."""

    tasks = ("multiclass",)

    def __init__(self, n_outputs, dim, tau):
        super().__init__()

    def forward(self, x, classifier, target):
        entropy = functional.cross_entropy(self.logits(x, classifier), target, reduction="none")
        return ((1.0 - (-entropy).exp()) ** GAMMA * entropy).mean()
