"""One RoFormerV2 training step in PyTorch, as fast as its own means allow: fused attention, one product for query, key and value,
logits only at the predicted positions, LAMB over lists of tensors, optionally compiled. The work of `roformer bench`: dense
sequences, or sequences of a corpus' lengths padded to the longest of the batch; 15 % predicted, dropout, gradients of lanes summed in
f32. With --encode the last hidden states of sequences of given lengths, sorted by length so that little is padded. run.py starts it; it
prints one line of JSON.

On a GPU everything is drawn before the clock starts and nothing waits between updates: their times are those between events."""

import argparse
import json
import math
import pathlib
import resource
import statistics
import time

import h5py
import numpy as np
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
            return torch.view_as_real(torch.view_as_complex(pairs.float()) * self.turn[:x.shape[2]]).flatten(-2).to(x.dtype)
        even, odd = pairs.unbind(-1)
        cos, sin = self.cos[:x.shape[2]], self.sin[:x.shape[2]]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(x.dtype)

    def hidden(self, tokens, mask):
        """mask [S, 1, 1, n] says which positions are there; None: all."""
        s, n = tokens.shape
        x = self.norm(self.drop(F.embedding(tokens, self.word) + self.segment[0]))
        for layer in self.layers:
            q, k, v = F.linear(x, layer.qkv).view(s, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            context = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, attn_mask=mask, dropout_p=self.attention_dropout)
            x = self.norm(x + self.drop(F.linear(context.transpose(1, 2).reshape(s, n, -1), layer.output)))
            x = self.norm(x + self.drop(F.linear(F.relu(F.linear(x, layer.up)), layer.down)))
        return x

    def forward(self, tokens, rows, targets, mask=None):
        logits = F.linear(self.drop(self.hidden(tokens, mask).flatten(0, 1)[rows]), self.word)
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


class Batches:
    """Random ids, predicted rows and targets of `lanes` micro-batches an update."""

    def __init__(self, a, vocab):
        self.a, self.vocab, self.each = a, vocab, a.sequences // a.lanes
        self.count = round(0.15 * self.each * a.length)

    def draw(self):
        a, each = self.a, self.each
        return [(torch.randint(self.vocab, (each, a.length), device=a.device), torch.randperm(each * a.length, device=a.device)[:self.count].sort().values,
                 torch.randint(self.vocab, (self.count,), device=a.device)) for _ in range(a.lanes)]

    @property
    def tokens(self):
        """Real ones, of the last draw."""
        return self.a.sequences * self.a.length


class CorpusBatches:
    """The same with lengths of random documents of a corpus, each lane padded to its longest."""

    def __init__(self, a, vocab):
        self.a, self.vocab, self.each, self.tokens = a, vocab, a.sequences // a.lanes, 0
        parts = []
        for shard in sorted(a.corpus.glob("corpus-*.h5")):
            with h5py.File(shard) as file:
                parts.append(np.diff(file["document_offsets"][:].astype(np.int64)))
        self.lengths = torch.from_numpy(np.minimum(np.concatenate(parts) + 2, a.length))  # [CLS] and [SEP]

    def draw(self):
        self.tokens, lanes = 0, []
        for _ in range(self.a.lanes):
            lengths = self.lengths[torch.randint(len(self.lengths), (self.each,))]
            there = torch.arange(int(lengths.max())) < lengths[:, None]
            places = there.flatten().nonzero().flatten()
            rows = places[torch.randperm(len(places))[:round(0.15 * len(places))]].sort().values
            lanes.append((torch.randint(self.vocab, there.shape), rows, torch.randint(self.vocab, rows.shape), there[:, None, None, :]))
            self.tokens += len(places)
        return lanes


class Update:
    """Forward and backward of every lane, then the optimizer."""

    def __init__(self, a, model, optimizer):
        self.a, self.model, self.optimizer = a, model, optimizer
        self.step, self.apply = (torch.compile(model), torch.compile(lamb)) if a.mode == "compile" else (model, lamb)
        self.lr = torch.tensor(1e-4, device=a.device)
        self.backward = self.optimize = 0.0  # seconds, on the CPU

    def run(self, lanes):
        self.model.zero_grad(set_to_none=True)
        self.backward, total = 0.0, 0
        for lane in lanes:
            with torch.autocast(self.a.device, dtype=torch.bfloat16, enabled=self.a.dtype == "bf16"):
                loss = self.step(*lane) / len(lanes)
            begin = time.perf_counter()
            loss.backward()
            self.backward += time.perf_counter() - begin
            total = total + loss.detach()
        begin = time.perf_counter()
        self.apply(*self.optimizer.lists(), self.lr)
        self.optimize = time.perf_counter() - begin
        return total


WARM_UP = 2  # memory pools, compilation
ENCODE_TOKENS = 2048  # of a batch, as `roformer encode` has


def measure_cpu(a, update, batches):
    rows = []
    for i in range(a.steps + WARM_UP):
        lanes = batches.draw()
        begin, begin_processor = time.perf_counter(), time.process_time()
        loss = update.run(lanes)
        seconds = time.perf_counter() - begin
        rows.append((seconds, time.process_time() - begin_processor, update.backward, update.optimize, batches.tokens / seconds))
    seconds, processor, backward, optimize, rate = map(statistics.median, zip(*rows[WARM_UP:]))
    return {"seconds": seconds, "processor_seconds": processor, "backward": backward, "update": optimize, "loss": loss.item(), "tokens_per_second": rate}


def measure_encode(a, model, vocab):
    """Sequences sorted by length, as many at a time as hold `tokens` when padded."""
    lengths = sorted(json.loads(a.encode.read_text()))
    groups, begin = [], 0
    for i, length in enumerate(lengths):
        if (i + 1 - begin) * length > ENCODE_TOKENS and i > begin:
            groups.append(lengths[begin:i])
            begin = i
    groups.append(lengths[begin:])
    batches = []
    for group in groups:
        there = torch.arange(group[-1]) < torch.tensor(group)[:, None]
        batches.append((torch.randint(vocab, there.shape), None if group[0] == group[-1] else there[:, None, None, :]))
    model.eval()
    model.dropout = model.attention_dropout = 0.0
    run = torch.compile(model.hidden, dynamic=True) if a.mode == "compile" else model.hidden
    times = []
    with torch.inference_mode(), torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
        for _ in range(a.steps + 1):
            begin = time.perf_counter()
            for tokens, mask in batches:
                run(tokens, mask)
            times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[1:])
    return {"seconds": seconds, "tokens_per_second": sum(lengths) / seconds}


def measure_gpu(a, update, batches):
    drawn = [batches.draw() for _ in range(a.steps + WARM_UP)]
    for lanes in drawn[:WARM_UP]:
        update.run(lanes)
    torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(a.steps + 1)]
    begin_processor = time.process_time()
    events[0].record()
    for lanes, event in zip(drawn[WARM_UP:], events[1:]):
        loss = update.run(lanes)
        event.record()
    torch.cuda.synchronize()
    seconds = [begin.elapsed_time(end) / 1000 for begin, end in zip(events, events[1:])]
    return {"seconds": statistics.median(seconds), "processor_seconds": (time.process_time() - begin_processor) / a.steps, "loss": loss.item(),
            "memory_bytes": torch.cuda.max_memory_reserved(), "gpu": torch.cuda.get_device_name()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--sequences", type=int, required=True, help="of an update")
    parser.add_argument("--lanes", type=int, default=1, help="micro-batches of an update")
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--dtype", choices=("f32", "bf16"), required=True)
    parser.add_argument("--mode", choices=("eager", "compile"), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--corpus", type=pathlib.Path, help="real lengths (CPU)")
    parser.add_argument("--encode", type=pathlib.Path, help="JSON list of lengths: inference on them (CPU)")
    a = parser.parse_args()
    if a.sequences % a.lanes:
        parser.error(f"--sequences {a.sequences} does not divide over --lanes {a.lanes}")
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    with open(a.model, encoding="utf-8") as file:
        config = json.load(file)
    longest = max(json.loads(a.encode.read_text())) if a.encode else a.length
    model = Model(config, longest, complex_rotation=a.mode == "eager").to(a.device)
    if a.encode:
        result = measure_encode(a, model, config["vocab_size"])
    else:
        batches = (CorpusBatches if a.corpus else Batches)(a, config["vocab_size"])
        result = (measure_gpu if a.device == "cuda" else measure_cpu)(a, Update(a, model, Lamb(model)), batches)
    print(json.dumps({"tokens_per_second": a.sequences * a.length / result["seconds"], **result, "parameters": sum(p.numel() for p in model.parameters()),
                      "version": torch.__version__, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
