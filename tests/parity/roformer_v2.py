"""RoFormerV2 and LAMB in plain PyTorch: the formulas, once, for the reader. Slow on purpose where that is clearer.

Weights are a dictionary under the names and shapes of the program's checkpoints:
embedding/word [V, C], embedding/segment [2, C], and of every layer attention/qkv [3, H, D, C], attention/output [C, H, D],
feed_forward/up [F, C], feed_forward/down [C, F]. A batch is packed: T tokens of S sequences, bounds cu_seqlens [S+1].
"""

import json
import math
import sys

import torch


def norm(x, epsilon):
    """x / sqrt(mean(x^2) + epsilon) over the channels; no mean taken off, nothing trained."""
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)


def rotate(x, position):
    """x [T, H, D]: neighbouring channels (2i, 2i+1) turned by position * 10000^(-2i/D)."""
    d = x.shape[-1]
    theta = 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = position.to(torch.float64)[:, None] * theta
    cos, sin = angle.cos().to(x.dtype)[:, None, :], angle.sin().to(x.dtype)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def attention(weights, layer, x, cu_seqlens, position):
    """concat_h(softmax(q k / sqrt(D)) v) Wo, each sequence for itself."""
    qkv, output = weights[f"layer_{layer}/attention/qkv"], weights[f"layer_{layer}/attention/output"]
    q, k, v = (torch.einsum("tc,hdc->thd", x, w) for w in qkv)
    q, k = rotate(q, position), rotate(k, position)
    contexts = []
    for begin, end in zip(cu_seqlens[:-1], cu_seqlens[1:]):
        scores = torch.einsum("ihd,jhd->hij", q[begin:end], k[begin:end]) / math.sqrt(q.shape[-1])
        contexts.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[begin:end]))
    return torch.einsum("thd,chd->tc", torch.cat(contexts), output)


def feed_forward(weights, layer, x):
    return torch.relu(x @ weights[f"layer_{layer}/feed_forward/up"].T) @ weights[f"layer_{layer}/feed_forward/down"].T


def encode(weights, tokens, cu_seqlens, alpha, epsilon):
    """Hidden states [T, C]: the embedding's, then every layer's."""
    position = torch.cat([torch.arange(end - begin) for begin, end in zip(cu_seqlens[:-1], cu_seqlens[1:])])
    x = norm(weights["embedding/word"][tokens] + weights["embedding/segment"][0], epsilon)
    states = [x]
    for layer in range(sum(name.endswith("qkv") for name in weights)):
        x = norm(x + alpha * attention(weights, layer, x, cu_seqlens, position), epsilon)
        x = norm(x + alpha * feed_forward(weights, layer, x), epsilon)
        states.append(x)
    return states


def logits_of(weights, hidden, rows):
    """[M, V]: the head is the word table itself, without bias."""
    return hidden[rows] @ weights["embedding/word"].T


def loss_of(logits, targets):
    """Sum of cross-entropies over (count + 1e-7), as train_mlm.py divides."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / (len(targets) + 1e-7)


def tensors_of(weights):
    """(weight, part) of every tensor that an optimizer takes by itself: query, key and value are three."""
    return [(weight, part) for name, weight in weights.items() for part in (range(3) if name.endswith("qkv") else [...])]


class Lamb:
    """The recipe's LAMB: no bias correction, decay on every tensor, trust ratio |p| / |update| without limits. A tensor whose
    gradient is exactly zero is left alone (the program's default)."""

    def __init__(self, weights, beta1=0.9, beta2=0.999, epsilon=1e-6, weight_decay=0.01):
        self.beta1, self.beta2, self.epsilon, self.weight_decay = beta1, beta2, epsilon, weight_decay
        self.tensors = [(weight, part, torch.zeros_like(weight.detach()[part]), torch.zeros_like(weight.detach()[part]))
                        for weight, part in tensors_of(weights)]

    @torch.no_grad()
    def step(self, lr):
        for weight, part, m, v in self.tensors:
            p, g = weight[part], weight.grad[part]
            m.mul_(self.beta1).add_((1 - self.beta1) * g)
            v.mul_(self.beta2).add_((1 - self.beta2) * g * g)
            if not g.any():
                continue
            delta = -lr * (m / (v.sqrt() + self.epsilon) + self.weight_decay * p)
            size, length = p.norm(), (delta / max(lr, 1e-7)).norm()
            ratio = size / length if size > 0 and length > 0 else 1
            p.add_(ratio * delta)


def update(weights, optimizer, batch, lr, alpha, epsilon):
    """One update on a packed batch (tokens, cu_seqlens, rows, targets); its loss before the update."""
    for weight in weights.values():
        weight.grad = None
    hidden = encode(weights, batch["tokens"], batch["cu_seqlens"], alpha, epsilon)[-1]
    loss = loss_of(logits_of(weights, hidden, batch["rows"]), batch["targets"])
    loss.backward()
    optimizer.step(lr)
    return loss.item()


def read_run(folder, optimizer):
    """(model, optimizer) of a run's run.json, refused where PyTorch would not follow."""
    path = folder / "run.json"
    document = json.loads(path.read_text())
    given = document.get("input", document)
    model, rule = given["model"], given["optimizer"]
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if model[key] != 0:
            sys.exit(f"{path}: model.{key} is {model[key]}, expected 0: two programs draw different dropout")
    if rule["name"] != optimizer or rule["max_gradient_norm"] != 0 or not rule["skip_zero_gradient"]:
        sys.exit(f"{path}: expected optimizer {optimizer} without clipping and with skip_zero_gradient")
    if model["residual_mode"] == "rezero":
        sys.exit(f"{path}: model.residual_mode is rezero, expected alpha or plain")
    return model, rule
