"""One RoFormerV2 training step in PyTorch, as fast as its own means allow: fused attention, one product for query, key and value,
logits only at the predicted positions, LAMB over lists of tensors, optionally compiled. The work of `roformer bench`: dense
sequences, 15 % predicted, dropout. run.py starts it; it prints one line of JSON."""

import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F


class Model(torch.nn.Module):
    def __init__(self, config, length, complex_rotation):
        super().__init__()
        c, f, self.heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
        self.dropout, self.attention_dropout = config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]
        self.channels, self.complex_rotation = c, complex_rotation

        def weight(rows, columns):
            return torch.nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))

        self.word, self.segment = weight(config["vocab_size"], c), weight(config["type_vocab_size"], c)
        self.layers = torch.nn.ModuleList()
        for _ in range(config["num_hidden_layers"]):
            layer = torch.nn.Module()
            layer.qkv, layer.output, layer.up, layer.down = weight(3 * c, c), weight(c, c), weight(f, c), weight(c, f)
            self.layers.append(layer)
        d = c // self.heads
        angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle))

    def norm(self, x):
        return F.rms_norm(x, (self.channels,), eps=1e-12)

    def drop(self, x):
        return F.dropout(x, self.dropout)

    def rotate(self, x):
        """[S, H, n, D]. One complex product where kernels are taken one by one; real arithmetic where the compiler fuses it."""
        pairs = x.unflatten(-1, (-1, 2))
        if self.complex_rotation:
            return torch.view_as_real(torch.view_as_complex(pairs.float()) * self.turn).flatten(-2).to(x.dtype)
        even, odd = pairs.unbind(-1)
        return torch.stack((even * self.cos - odd * self.sin, odd * self.cos + even * self.sin), -1).flatten(-2).to(x.dtype)

    def forward(self, tokens, rows, targets):
        s, n = tokens.shape
        x = self.norm(self.drop(F.embedding(tokens, self.word) + self.segment[0]))
        for layer in self.layers:
            q, k, v = F.linear(x, layer.qkv).view(s, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            context = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, dropout_p=self.attention_dropout)
            x = self.norm(x + self.drop(F.linear(context.transpose(1, 2).reshape(s, n, -1), layer.output)))
            x = self.norm(x + self.drop(F.linear(F.relu(F.linear(x, layer.up)), layer.down)))
        logits = F.linear(self.drop(x.flatten(0, 1)[rows]), self.word)
        return F.cross_entropy(logits.float(), targets)


class Lamb:
    """Over lists of tensors; query, key and value are three."""

    def __init__(self, model):
        self.weights = []
        for name, p in model.named_parameters():
            self.weights += [(p, part) for part in range(3)] if name.endswith("qkv") else [(p, None)]
        self.m, self.v = ([torch.zeros_like(self.view(p.data, part)) for p, part in self.weights] for _ in range(2))

    @staticmethod
    def view(tensor, part):
        return tensor if part is None else tensor.unflatten(0, (3, -1))[part]

    def lists(self):
        return [self.view(p.data, part) for p, part in self.weights], [self.view(p.grad, part) for p, part in self.weights], self.m, self.v


@torch.no_grad()
def lamb(weights, gradients, m, v, lr):
    torch._foreach_lerp_(m, gradients, 0.1)
    torch._foreach_mul_(v, 0.999)
    torch._foreach_addcmul_(v, gradients, gradients, 0.001)
    update = torch._foreach_sqrt(v)
    torch._foreach_add_(update, 1e-6)
    update = torch._foreach_div(m, update)
    torch._foreach_add_(update, weights, alpha=0.01)
    size, length = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(update))
    ratio = torch.where((size > 0) & (length > 0), size / length, 1.0) * lr
    torch._foreach_mul_(update, list(ratio.unbind()))
    torch._foreach_sub_(weights, update)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--sequences", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--dtype", choices=("f32", "bf16"), required=True)
    parser.add_argument("--mode", choices=("eager", "compile"), required=True)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    with open(a.model, encoding="utf-8") as file:
        config = json.load(file)
    model = Model(config, a.length, complex_rotation=a.mode == "eager")
    optimizer = Lamb(model)
    step, apply = (torch.compile(model), torch.compile(lamb)) if a.mode == "compile" else (model, lamb)
    count = round(0.15 * a.sequences * a.length)
    lr = torch.tensor(1e-4)
    times, processor, backward, update, loss = [], [], [], [], None
    for i in range(a.steps + 2):
        tokens = torch.randint(config["vocab_size"], (a.sequences, a.length))
        rows = torch.randperm(a.sequences * a.length)[:count].sort().values
        targets = torch.randint(config["vocab_size"], (count,))
        begin, begin_processor = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = step(tokens, rows, targets)
        forward_end = time.perf_counter()
        model.zero_grad(set_to_none=True)
        loss.backward()
        backward_end = time.perf_counter()
        apply(*optimizer.lists(), lr)
        if i >= 2:  # warm: memory pools, compilation
            times.append(time.perf_counter() - begin)
            processor.append(time.process_time() - begin_processor)
            backward.append(backward_end - forward_end)
            update.append(time.perf_counter() - backward_end)
    median = statistics.median(times)
    print(json.dumps({"seconds": median, "processor_seconds": statistics.median(processor), "tokens_per_second": a.sequences * a.length / median, "backward": statistics.median(backward),
                      "update": statistics.median(update), "loss": loss.item(), "parameters": sum(p.numel() for p in model.parameters()),
                      "version": torch.__version__}))


if __name__ == "__main__":
    main()
