"""BERT, RoBERTa and RoFormer v1 in plain PyTorch, by torch.nn.functional: the formulas of the encoders that RoFormerV2 is compared with.

Weights are a dictionary under the names and shapes of the program's checkpoints: beside those of roformer_v2.py embedding/position [P, C] (BERT, RoBERTa),
embedding/norm/gain and /bias [C], of every layer attention/qkv_bias [3, H, D], attention/output_bias [C], attention/norm/..., feed_forward/up_bias [F], feed_forward/down_bias [C],
feed_forward/norm/..., and the head's mlm/dense [C, C], mlm/dense_bias [C], mlm/norm/..., mlm/bias [V].
"""

import math

import torch
from torch.nn import functional

import roformer_v2

FAMILIES = ("bert", "roberta", "roformer")


def shapes_of(family, vocab, hidden, heads, inner, layers, positions):
    """Name -> (shape, standard deviation)."""
    c = hidden
    norm = lambda scope: {f"{scope}/gain": ((c,), 1), f"{scope}/bias": ((c,), 0.3)}
    shapes = {"embedding/word": ((vocab, c), c**-0.5), "embedding/segment": ((2, c), c**-0.5)}
    if family != "roformer":
        shapes["embedding/position"] = ((positions, c), c**-0.5)
    shapes |= norm("embedding/norm")
    for i in range(layers):
        scope = f"layer_{i}/"
        shapes |= {f"{scope}attention/qkv": ((3, heads, c // heads, c), c**-0.5), f"{scope}attention/output": ((c, heads, c // heads), c**-0.5),
                   f"{scope}attention/qkv_bias": ((3, heads, c // heads), 0.3), f"{scope}attention/output_bias": ((c,), 0.3)}
        shapes |= norm(f"{scope}attention/norm")
        shapes |= {f"{scope}feed_forward/up": ((inner, c), c**-0.5), f"{scope}feed_forward/down": ((c, inner), inner**-0.5),
                   f"{scope}feed_forward/up_bias": ((inner,), 0.3), f"{scope}feed_forward/down_bias": ((c,), 0.3)}
        shapes |= norm(f"{scope}feed_forward/norm")
    return shapes | {"mlm/dense": ((c, c), c**-0.5), "mlm/dense_bias": ((c,), 0.3)} | norm("mlm/norm") | {"mlm/bias": ((vocab,), 0.3)}


def norm(weights, scope, x, epsilon):
    return functional.layer_norm(x, x.shape[-1:], weights[f"{scope}/gain"], weights[f"{scope}/bias"], epsilon)


def attention(family, weights, layer, x, cu_seqlens, position):
    """Each sequence for itself, by torch's own attention."""
    scope = f"layer_{layer}/attention/"
    q, k, v = (torch.einsum("tc,hdc->thd", x, w) + b for w, b in zip(weights[scope + "qkv"], weights[scope + "qkv_bias"]))
    if family == "roformer":
        q, k = roformer_v2.rotate(q, position), roformer_v2.rotate(k, position)
    contexts = []
    for begin, end in zip(cu_seqlens[:-1], cu_seqlens[1:]):
        one = functional.scaled_dot_product_attention(*(t[begin:end].transpose(0, 1) for t in (q, k, v)), scale=1 / math.sqrt(q.shape[-1]))
        contexts.append(one.transpose(0, 1))
    return functional.linear(torch.cat(contexts).flatten(1), weights[scope + "output"].flatten(1), weights[scope + "output_bias"])


def encode(family, weights, tokens, segments, cu_seqlens, alpha, epsilon):
    """Hidden states [T, C]: the embedding's, then every layer's."""
    position = torch.cat([torch.arange(end - begin) for begin, end in zip(cu_seqlens[:-1], cu_seqlens[1:])])
    x = functional.embedding(tokens, weights["embedding/word"]) + functional.embedding(segments * (family != "roberta"), weights["embedding/segment"])
    if family != "roformer":
        x = x + functional.embedding(position, weights["embedding/position"])
    x = norm(weights, "embedding/norm", x, epsilon)
    states = [x]
    for layer in range(sum(name.endswith("/qkv") for name in weights)):
        scope = f"layer_{layer}/"
        x = norm(weights, scope + "attention/norm", x + alpha * attention(family, weights, layer, x, cu_seqlens, position), epsilon)
        inner = functional.gelu(functional.linear(x, weights[scope + "feed_forward/up"], weights[scope + "feed_forward/up_bias"]))
        x = norm(weights, scope + "feed_forward/norm", x + alpha * functional.linear(inner, weights[scope + "feed_forward/down"], weights[scope + "feed_forward/down_bias"]), epsilon)
        states.append(x)
    return states


def logits_of(weights, hidden, rows, epsilon):
    h = functional.gelu(functional.linear(hidden[rows], weights["mlm/dense"], weights["mlm/dense_bias"]))
    return functional.linear(norm(weights, "mlm/norm", h, epsilon), weights["embedding/word"], weights["mlm/bias"])


class Lamb(roformer_v2.Lamb):
    """The same LAMB; gains and biases take no part in weight decay, and the bias of query, key and value is three tensors."""

    def __init__(self, weights, **rule):
        super().__init__({}, **rule)
        decay = self.weight_decay
        self.parts = []
        for name, weight in weights.items():
            three = "/qkv" in name
            for part in range(3) if three else [...]:
                zeros = torch.zeros_like(weight.detach()[part])
                self.parts.append((weight, part, zeros, zeros.clone(), 0 if name.endswith(("bias", "gain")) else decay))

    def step(self, lr):
        for weight, part, m, v, decay in self.parts:
            self.tensors, self.weight_decay = [(weight, part, m, v)], decay
            super().step(lr)
