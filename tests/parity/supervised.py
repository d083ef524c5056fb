"""Heads of supervised tasks, their losses and AdaFactor in plain PyTorch: the formulas, once, for the reader.

Weights as in roformer_v2.py; a head's are task/<task>/dense, with task/<task>/bias behind the classes, with task/<task>/bias_dense behind
token pairs. n tokens of one sequence, L types of entities, D the size of a query.
"""

import math

import torch

import roformer_v2

TINY, LEAST_SCALE = 1e-30, 1e-3  # AdaFactor's epsilon 1 and 2


def class_logits(weights, task, hidden, rows):
    """[S, classes] from the first token of each sequence."""
    return hidden[rows] @ weights[f"task/{task}/dense"].T + weights[f"task/{task}/bias"]


def pair_scores(weights, task, hidden):
    """EfficientGlobalPointer, [L, n, n] of one sequence's hidden states: type, start, end."""
    narrow = hidden @ weights[f"task/{task}/dense"].T
    position = torch.arange(len(hidden))
    q, k = (roformer_v2.rotate(narrow[:, None, part::2], position)[:, 0] for part in range(2))
    bias = (narrow @ weights[f"task/{task}/bias_dense"].T).T / 2
    return q @ k.T / math.sqrt(q.shape[-1]) + bias[0::2, None, :] + bias[1::2, :, None]


def pairs_allowed(n, visible):
    """[n, n] start <= end, both among the visible tokens."""
    token = torch.arange(n)
    inside = (token >= visible[0]) & (token < visible[1])
    return inside[:, None] & inside[None, :] & (token[:, None] <= token[None, :])


def multilabel_loss(scores, right, allowed):
    """log(1 + sum of e^s over wrong cells) + log(1 + sum of e^-s over right ones), of each type; scores and right [L, ...]."""
    def log_sum(values, counted):
        values = torch.where(counted, values, -torch.inf).flatten(1)
        return torch.cat((values.new_zeros(len(values), 1), values), dim=1).logsumexp(1)
    return log_sum(scores, allowed & ~right) + log_sum(-scores, allowed & right)


class AdaFactor:
    """Without factors, as bert4keras runs it in fine-tuning (Shazeer & Stern 2018, section 9): v = (1 - t^-0.8) v + t^-0.8 (g^2 + 1e-30);
    u = g / sqrt(v + 1e-30), divided by max(1, rms(u)); m = beta1 m + (1 - beta1) u; p -= lr max(rms(p), 1e-3) m. A tensor whose gradient
    is exactly zero keeps m and p (the program's default)."""

    def __init__(self, weights, beta1=0.9):
        self.beta1, self.updates = beta1, 0
        self.tensors = [(weight, part, torch.zeros_like(weight.detach()[part]), torch.zeros_like(weight.detach()[part]))
                        for weight, part in roformer_v2.tensors_of(weights)]

    @torch.no_grad()
    def step(self, lr):
        self.updates += 1
        new = self.updates**-0.8
        for weight, part, m, v in self.tensors:
            p = weight[part]
            g = torch.zeros_like(p) if weight.grad is None else weight.grad[part]
            v.mul_(1 - new).add_(new * (g * g + TINY))
            if not g.any():
                continue
            u = g / (v + TINY).sqrt()
            u /= max(1.0, rms(u))
            m.mul_(self.beta1).add_((1 - self.beta1) * u)
            p.sub_(lr * max(rms(p), LEAST_SCALE) * m)


def rms(x):
    """In f64: a sum of a million squares."""
    return x.double().square().mean().sqrt().item()
