#!/usr/bin/python3
"""The whole training program on a GPU, or on the emulator that stands for one: the CPU's loss curve, the same bits on any
number of data ranks, captured or not, in any order the scheduler may choose; checkpoints that change device."""

import json

from harness import main, prepare, run, sets, state, tiny


def losses(folder):
    with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["row"][1] for row in rows if row["table"] == "train"]


def small(output, **more):
    """A run of a few seconds in the emulator."""
    return tiny(output, **{**dict(steps=5, batch__sequences=8, eval_every=50, checkpoint_every=50, evaluation__documents=8, device="cuda"), **more})


def close(a, b, bound):
    assert len(losses(a)) == len(losses(b)) > 0
    for x, y in zip(losses(a), losses(b)):
        assert abs(x - y) <= bound * x, (a, b, x, y)


def seeded(seed):
    return {"RF_EMULATOR_SEED": str(seed)}


def test_follows_the_cpu():
    prepare()
    run("pretrain", *small("cpu", device="cpu"))
    run("pretrain", *small("gpu"))
    close("cpu", "gpu", 1e-4)


def test_data_ranks_seeds_and_graphs_give_the_same_bits():
    prepare()
    run("pretrain", *small("one"), env=seeded(11))
    run("pretrain", *small("eager", parallel__graphs="false"), env=seeded(12))
    run("pretrain", *small("two"), ranks=2, env=seeded(13))
    run("pretrain", *small("four"), ranks=4, env=seeded(14))
    assert state("one") == state("eager") == state("two") == state("four")


def test_bf16_on_tensor_cores_follows_the_cpu_and_keeps_its_bits():
    prepare()
    # Heads of 64 take the kernels for tensor cores. Devices round the same values in another order: the loss, a mean over
    # hundreds of targets, stays well inside one last place of bf16.
    wide = dict(dtype="bf16", steps=3, model__hidden_size=128, model__num_attention_heads=2)
    run("pretrain", *small("wide_cpu", device="cpu", **wide))
    run("pretrain", *small("wide_gpu", **wide), env=seeded(15))
    close("wide_cpu", "wide_gpu", 2**-8)
    run("pretrain", *small("wide_two", **wide), ranks=2, env=seeded(16))
    assert state("wide_gpu") == state("wide_two")


def test_tensor_ranks_follow_the_same_curve():
    prepare()
    run("pretrain", *small("whole"))
    run("pretrain", *small("split", parallel__tensor=2), ranks=2)
    close("whole", "split", 1e-5)


def test_checkpoints_go_from_one_device_to_the_other():
    prepare()
    run("pretrain", *small("there", steps=3))
    run("pretrain", *small("there", device="cpu"))
    run("pretrain", *small("back", steps=3, device="cpu"))
    run("pretrain", *small("back"))
    close("there", "back", 1e-4)


def test_a_loss_that_is_not_finite_stops_with_step_and_tensor():
    prepare()
    text = run("pretrain", *small("nan", optimizer__lr=1e30, schedule__lr="[[0,1]]"), expect=1)
    assert "is not finite" in text and ("layer_" in text or "embedding" in text), text


def test_out_of_memory_says_what_would_help():
    prepare()
    text = run("pretrain", *small("big"), expect=1, env={"RF_EMULATOR_MEMORY": "600000"})
    for part in ("out of GPU memory", "asked for", "free", "batch.lanes"):
        assert part in text, text


def test_without_a_gpu_cuda_is_refused_and_auto_takes_the_cpu():
    prepare()
    none = {"RF_EMULATOR_DEVICES": "0"}
    assert "no CUDA-capable device" in run("pretrain", *small("none"), expect=2, env=none)
    assert "working on the CPU" in run("pretrain", *small("auto", device="auto", steps=1), env=none)


def test_ranks_do_not_share_a_gpu():
    prepare()
    text = run("pretrain", *small("shared"), ranks=2, expect=2, env={"RF_EMULATOR_DEVICES": "1"})
    assert "share a GPU" in text, text


if __name__ == "__main__":
    main(globals())
