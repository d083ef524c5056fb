"""What the GPU itself can do, by PyTorch: one large copy and one large bf16 product, on random data. Prints one line of JSON."""

import json
import statistics

import torch


def median_seconds(work, repeats=20):
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times)


def main():
    device = torch.cuda.get_device_properties(0)
    source = torch.randint(0, 256, (4 << 30,), dtype=torch.uint8, device="cuda")  # far more than any cache
    target = torch.empty_like(source)
    copy = 2 * source.numel() / median_seconds(lambda: target.copy_(source))
    del source, target
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * n**3 / median_seconds(lambda: torch.mm(a, b))
    print(json.dumps({"gpu": device.name, "multiprocessors": device.multi_processor_count, "memory_bytes": device.total_memory,
                      "copy_bytes_per_second": copy, "bf16_product_flops_per_second": product, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
