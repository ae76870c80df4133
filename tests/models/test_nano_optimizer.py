"""Muon as nano is trained with it: against torch's own, which works matrix by matrix in bf16."""

from __future__ import annotations

import torch
from torch import nn

from ltx2core.models.nano.optimizer import Muon, Optimizer, orthogonalised


def test_singular_values_come_out_near_one_whatever_the_shape() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 32), (3, 32, 8), (1, 16, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape) * 7))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_a_step_is_that_of_torchs_muon_within_bf16() -> None:
    torch.manual_seed(0)
    shapes = ((24, 16), (24, 16), (8, 40))
    ours = [torch.randn(shape) for shape in shapes]
    theirs = [nn.Parameter(weight.clone()) for weight in ours]
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    muon = Muon(ours, weight_decay=0.1)
    for _ in range(3):
        for weight, other in zip(ours, theirs, strict=True):
            weight.grad = torch.randn(weight.shape)
            other.grad = weight.grad.clone()
        muon.step(0.02)
        reference.step()
    for weight, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, other.detach(), atol=2e-3, rtol=0)  # three updates of 0.004 in the mean


def test_the_optimizer_lowers_a_loss_of_layers_and_other_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 1))
    seen, wanted = torch.randn(64, 8), torch.randn(64, 1)
    optimizer = Optimizer(model, rate=1e-2, steps=200, muon=True)
    before = (model(seen) - wanted).square().mean().item()
    for _ in range(200):
        optimizer.update((model(seen) - wanted).square().mean())
    assert (model(seen) - wanted).square().mean().item() < 0.7 * before
