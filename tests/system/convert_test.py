#!/usr/bin/python3
"""convert through the command line: there and back in every format, what the peers wrote and computed (tests/convert/fixtures), heads, readers in
Python, bad usage. Files that are damaged: tests/convert."""

import json
import math
import os
import shutil
import sys

import h5py
import numpy as np

from harness import SOURCE, main, prepare, run, sets, tiny
from small_tasks import write_task, write_vocab

sys.path.insert(0, os.path.join(SOURCE, "postprocess"))
from roformer_reader import read_checkpoint

FIXTURES = os.path.join(SOURCE, "tests/convert/fixtures")
SENTENCES = os.path.join(SOURCE, "tests/parity/peers/sentences.txt")


def digest(path):
    return next(line for line in run("inspect", path).splitlines() if line.startswith("digest weights"))


def convert(source, target, path, out, *more, expect=0):
    return run("convert", "--from", source, "--to", target, *more, path, out, expect=expect)


def checkpoint():
    """Random weights of a model that has not been trained."""
    prepare()
    if not os.path.exists("model"):
        run("pretrain", *tiny("model", steps=0, model__residual_mode="plain"))
    return "model"


def test_there_and_back():
    source = checkpoint()
    for name, target, out, more in (("safetensors", "hf", "hf", ()), ("zip", "hf", "hf_zip", ("--weights", "zip")), ("tf", "tf", "tf", ()),
                                    ("keras", "keras-h5", "keras", ()), ("file", "keras-h5", "keras.h5", ()), ("copy", "rf", "copy", ())):
        text = convert("rf", target, source, out, *more)
        assert "converted and read back" in text, text
        convert(target, "rf", out, f"back_{name}")
        assert digest(f"back_{name}") == digest(source), name
        assert "all agree" in run("verify", f"back_{name}")
        assert not os.path.exists(f"{out}.partial")
    assert sorted(os.listdir("hf")) == ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(os.listdir("tf")) == ["bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "checkpoint", "vocab.txt"]
    assert sorted(os.listdir("keras")) == ["bert_config.json", "roformer.v2.weights", "vocab.txt"]
    for folder in ("hf", "tf", "keras"):
        assert open(f"{folder}/vocab.txt", "rb").read() == open("vocab.txt", "rb").read()


def our_logits(hidden, weights):
    """The head with a layer of its own: dense, gelu, layer norm, table of words, bias."""
    x = (hidden @ weights["mlm/dense"].T + weights["mlm/dense_bias"]).astype(np.float64)
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
    return (x * weights["mlm/norm/gain"] + weights["mlm/norm/bias"]) @ weights["embedding/word"].T + weights["mlm/bias"]


def test_bert_and_the_first_roformer_compute_what_their_peer_computed():
    lines = "".join(open(SENTENCES, encoding="utf-8").readlines()[:8]).encode()  # those of families_peer.py
    for family, fixture in (("bert", "bert"), ("roberta", "bert"), ("roformer", "roformer")):
        folder = f"import_{family}"
        convert("hf", "rf", f"{FIXTURES}/{fixture}", folder, "--family", family)
        assert read_checkpoint(folder)[0]["family"] == family
        run("encode", "--checkpoint", folder, "--dtype", "f32", "--out", f"{folder}.h5", stdin=lines)
        _, weights, _ = read_checkpoint(folder)
        with h5py.File(f"{folder}.h5", "r") as ours, h5py.File(f"{FIXTURES}/expected_{fixture}.h5", "r") as theirs:
            assert ours["hidden"].shape == theirs["hidden"].shape
            assert np.abs(ours["hidden"][:] - theirs["hidden"][:]).max() < 1e-4, family
            assert np.abs(our_logits(ours["hidden"][:], weights) - theirs["logits"][:]).max() < 1e-4, family
        for target, more in (("hf", ()), ("hf", ("--weights", "zip")), ("tf", ())):
            out = f"{folder}_{target}{len(more)}"
            convert("rf", target, folder, out, *more)
            convert(target, "rf", out, f"{out}_back", "--family", family)
            assert digest(f"{out}_back") == digest(folder), (family, target)
        # Pre-training goes on from it.
        if not os.path.exists("family_corpus"):
            run("build-corpus", *sets(text=SENTENCES, vocab=f"{FIXTURES}/bert/vocab.txt", output="family_corpus", segmenter__name="none"))
        text = run("pretrain", *sets(model=json.dumps(read_checkpoint(folder)[0]), vocab=f"{FIXTURES}/{fixture}/vocab.txt", corpus="family_corpus", checkpoint=folder,
                                     output=f"{folder}_on", steps=1, batch__sequences=2, batch__max_length=16, batch__lanes=1, evaluation__documents=1, parallel__threads=1))
        assert "done: step 1" in text, text
    assert read_checkpoint("import_bert")[1].keys() == read_checkpoint("import_roberta")[1].keys()


def test_old_names_and_the_layers_of_other_heads():
    """BERT's first exports say gamma and beta; a pre-trained one has a pooler and a head for pairs of sentences beside."""
    convert("hf", "rf", f"{FIXTURES}/bert", "of_today", "--family", "bert")
    with open(f"{FIXTURES}/bert/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): about for name, about in header.items()}
    for name in ("bert.pooler.dense.bias", "cls.seq_relationship.bias"):
        header[name] = {"dtype": "F32", "shape": [32], "data_offsets": [len(data), len(data) + 128]}
        data += bytes(128)
    text = json.dumps(header).encode()
    os.makedirs("old")
    for name in ("config.json", "vocab.txt"):
        shutil.copy(f"{FIXTURES}/bert/{name}", "old")
    with open("old/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
    text = convert("hf", "rf", "old", "of_old", "--family", "bert")
    assert "left out: bert.pooler.dense.bias, cls.seq_relationship.bias" in text, text
    assert digest("of_old") == digest("of_today")


def test_another_family_than_said_is_refused_and_what_only_rf_holds_stays_there():
    bert, roformer, v2 = f"{FIXTURES}/bert", f"{FIXTURES}/roformer", f"{FIXTURES}/hf_safetensors"
    for given, family, words in ((bert, None, 'model_type "bert"'), (roformer, None, "RoFormer of the first version"), (v2, "bert", "model_type: expected bert of family bert"),
                                 (v2, "roformer", "hidden_act: expected gelu of family roformer, found relu"), (bert, "roformer", "model_type: expected roformer"),
                                 (roformer, "roberta", "model_type: expected bert of family roberta, found roformer")):
        text = convert("hf", "rf", given, "never", *(("--family", family) if family else ()), expect=2)
        assert words in text and text.count("error:") == 1, text
        assert family or "--family bert, roberta or roformer" in text, text
    for words in (("--from", "rf", "--to", "hf", "--family", "bert"), ("--from", "keras-h5", "--to", "rf", "--family", "bert"), ("--from", "hf", "--to", "rf", "--family", "gpt")):
        text = run("convert", *words, bert, "never", expect=2)
        assert "--family" in text and text.count("error:") == 1, text
    convert("hf", "rf", bert, "whole_bert", "--family", "bert")
    assert "keras-h5 is written of RoFormerV2 only" in convert("rf", "keras-h5", "whole_bert", "never", expect=2)
    assert not os.path.exists("never") and not os.path.exists("never.partial")


def test_a_training_goes_on_from_an_import():
    source = checkpoint()
    convert("rf", "tf", source, "released")
    convert("tf", "rf", "released", "imported")
    run("pretrain", *tiny("continued", steps=2, model__residual_mode="plain", checkpoint="imported"))
    run("pretrain", *tiny("direct", steps=2, model__residual_mode="plain", checkpoint=source))
    assert digest("continued") == digest("direct")
    assert run("fill-mask", "--checkpoint", "imported", stdin="一[MASK]丁\n".encode()).count("\t") == 5


def test_numbers_read_by_other_means():
    """Orientation and names, by h5py and numpy alone."""
    source = checkpoint()
    model, weights, vocab = read_checkpoint(source)
    assert 200 < len(vocab) <= model["vocab_size"] == 400 and weights["layer_1/attention/qkv"].shape == (3, 4, 16, 64)
    key = weights["layer_1/attention/qkv"][1].reshape(64, 64)
    convert("rf", "keras-h5", source, "plain.h5")
    with h5py.File("plain.h5", "r") as file:
        layers = list(file.attrs["layer_names"])
        assert layers[:3] == ["Embedding-Token", "Embedding-Segment", "Transformer-0-MultiHeadSelfAttention"], layers
        group = file["Transformer-1-MultiHeadSelfAttention"]
        assert np.array_equal(group[group.attrs["weight_names"][1]][:], key.T)
    convert("rf", "hf", source, "plain_hf")
    with open("plain_hf/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin, end = header["roformer.encoder.layer.1.attention.self.key.weight"]["data_offsets"]
        data = file.read()
    assert np.array_equal(np.frombuffer(data[begin:end], "<f4").reshape(64, 64), key)
    config = json.load(open("plain_hf/config.json", encoding="utf-8"))
    assert config["norm_type"] == "rms_norm" and config["use_bias"] is False and config["architectures"] == ["RoFormerForMaskedLM"] and config["embedding_size"] == 64
    convert("rf", "tf", source, "plain_tf")
    with open("plain_tf/bert_model.ckpt.data-00000-of-00001", "rb") as file:  # the first name: the table of segments
        assert np.array_equal(np.frombuffer(file.read(4 * 2 * 64), "<f4").reshape(2, 64), weights["embedding/segment"])
    assert list(json.load(open("plain_tf/bert_config.json", encoding="utf-8"))) == [
        "hidden_act", "hidden_size", "hidden_dropout_prob", "attention_probs_dropout_prob", "intermediate_size", "num_attention_heads", "num_hidden_layers",
        "type_vocab_size", "vocab_size", "vocab_tokens"]  # the last because the table has more rows than vocab.txt lines


def test_what_the_peers_computed():
    """encode on what each peer wrote, against what each computed: hidden states, and logits by the table of words."""
    lines = open(SENTENCES, "rb").read()
    for source, folder in (("hf", "hf"), ("hf", "hf_legacy"), ("hf", "hf_safetensors"), ("tf", "tf"), ("keras-h5", "keras")):
        out = f"peer_{folder}"
        convert(source, "rf", os.path.join(FIXTURES, folder), out)
        run("encode", "--checkpoint", out, "--out", f"{out}.h5", "--dtype", "f32", stdin=lines)
        words = read_checkpoint(out)[1]["embedding/word"]
        with h5py.File(f"{out}.h5", "r") as file:
            hidden = file["hidden"][:]
        for peer in ("pytorch", "bert4keras"):
            with h5py.File(os.path.join(FIXTURES, f"expected_{peer}.h5"), "r") as file:
                assert hidden.shape == file["hidden"].shape
                assert np.abs(hidden - file["hidden"][:]).max() < 1e-4, (folder, peer)
                assert np.abs(hidden @ words.T - file["logits"][:]).max() < 1e-4, (folder, peer)


def test_the_stored_outputs_of_larger_peers():
    """The weights of ../shared/data/peer_weights in every form, where they are; a model without vocabulary."""
    folder = os.path.join(os.environ.get("RF_DATA", os.path.join(SOURCE, "../shared/data")), "peer_weights/h64")
    if not os.path.exists(folder):
        print("     peer_weights are absent: left out")
        return
    digests = set()
    for source, name in (("hf", "hf"), ("hf", "hf_legacy"), ("hf", "hf_st"), ("tf", "tf"), ("keras-h5", "keras")):
        text = convert(source, "rf", os.path.join(folder, name), f"h64_{name}")
        assert "no vocab.txt" in text, text
        digests.add(digest(f"h64_{name}"))
    assert len(digests) == 1, digests
    # Ids stand in the stored batches; a vocabulary whose token of an id is one character says them as text.
    characters = [chr(0x4E00 + i) for i in range(160)]
    tokens = characters[:]
    tokens[0], tokens[100], tokens[101], tokens[102], tokens[103] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    with open("h64.txt", "w", encoding="utf-8") as out:
        out.write("\n".join(tokens) + "\n")
    words = read_checkpoint("h64_hf")[1]["embedding/word"]
    compared = 0
    with h5py.File(os.path.join(folder, "expected.h5"), "r") as file:
        for batch in (file[f"batch{i}"] for i in range(6)):
            for row, (ids, segments) in enumerate(zip(batch["ids"][:], batch["seg"][:])):
                # Sentences as encode makes them: between [CLS] and [SEP], no special inside, segment 0.
                if segments.any() or ids[0] != 101 or ids[-1] != 102 or not set(ids[1:-1]).isdisjoint((0, 100, 101, 102, 103)):
                    continue
                if len(ids) == 2:
                    continue  # an empty line
                run("encode", "--checkpoint", "h64_hf", "--vocab", "h64.txt", "--out", "h64.h5", "--dtype", "f32", stdin="".join(tokens[i] for i in ids[1:-1]).encode() + b"\n")
                with h5py.File("h64.h5", "r") as mine:
                    hidden = mine["hidden"][:]
                assert np.abs(hidden - batch["torch/layer1"][row]).max() < 3e-5
                assert np.abs(hidden @ words.T - batch["torch/logits"][row]).max() < 1e-4
                compared += 1
    assert compared >= 2, compared


def test_a_head_is_taken_along():
    prepare()
    write_vocab("vocab_of_tasks.txt")
    task = write_task("classify")
    run("finetune", *sets(model__hidden_size=32, model__num_attention_heads=4, model__num_hidden_layers=1, model__intermediate_size=32, model__vocab_size=80,
                          model__residual_mode="plain", vocab="vocab_of_tasks.txt", task=task,
                          output="tuned", epochs=2, batch__sequences=4, optimizer__lr=3e-3, dtype="f32", parallel__threads=1))
    rows = "一丷丿\n乎乕\n".encode()
    answers = run("predict", "--checkpoint", "tuned", "--dtype", "f32", stdin=rows)
    for target, out, more in (("hf", "tuned_hf", ()), ("hf", "tuned_zip", ("--weights", "zip")), ("tf", "tuned_tf", ()), ("keras-h5", "tuned.h5", ())):
        convert("rf", target, "tuned", out, *more)
        convert(target, "rf", out, f"{out}_back")
        assert digest(f"{out}_back") == digest("tuned"), out
        assert run("predict", "--checkpoint", f"{out}_back", "--dtype", "f32", stdin=rows) == answers, out
    config = json.load(open("tuned_hf/config.json", encoding="utf-8"))
    assert config["architectures"] == ["RoFormerForSequenceClassification"] and config["problem_type"] == "single_label_classification"
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"} and config["label2id"] == {"a": 0, "b": 1, "c": 2}
    # The package's classifier by hand: relu between two matrices gives the head's own logits.
    with open("tuned_hf/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    tensor = {name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"]) for name, entry in header.items() if name.startswith("classifier")}
    _, weights, _ = read_checkpoint("tuned")
    x = np.random.RandomState(1).standard_normal((5, 32)).astype(np.float32)
    hidden = np.maximum(x @ tensor["classifier.dense.weight"].T + tensor["classifier.dense.bias"], 0)
    logits = hidden @ tensor["classifier.out_proj.weight"].T + tensor["classifier.out_proj.bias"]
    head = next(name for name in weights if name.startswith("task/") and name.endswith("/dense"))
    assert np.abs(logits - (x @ weights[head].T + weights[head.replace("dense", "bias")])).max() < 1e-5
    # Another format's encoder without its head is an encoder.
    os.remove("tuned_tf/task.json")
    assert "left out: output_bias, output_weights" in convert("tf", "rf", "tuned_tf", "encoder")


def test_a_residual_weight_on_its_way():
    """Kept with a warning, or multiplied into the matrices."""
    prepare()
    run("pretrain", *tiny("halfway", steps=5))  # half of the schedule's ten updates
    text = convert("rf", "hf", "halfway", "kept")
    assert "warning: this checkpoint computes with a residual weight of 0.5" in text, text
    convert("hf", "rf", "kept", "kept_back")
    assert digest("kept_back") == digest("halfway")
    convert("rf", "hf", "halfway", "folded", "--alpha", "fold")
    convert("hf", "rf", "folded", "folded_back")
    lines = "一丷丿\n".encode()
    for name in ("halfway", "folded_back", "kept_back"):
        run("encode", "--checkpoint", name, "--out", f"{name}.h5", "--dtype", "f32", stdin=lines)
    hidden = {name: h5py.File(f"{name}.h5", "r")["hidden"][:] for name in ("halfway", "folded_back", "kept_back")}
    assert np.abs(hidden["folded_back"] - hidden["halfway"]).max() < 1e-5 < np.abs(hidden["kept_back"] - hidden["halfway"]).max()


def test_rezero_stays_at_home():
    prepare()
    run("pretrain", *tiny("rezero", steps=0, model__residual_mode="rezero"))
    assert "rezero" in convert("rf", "tf", "rezero", "rezero_tf", expect=2)
    convert("rf", "rf", "rezero", "rezero_copy")
    assert digest("rezero_copy") == digest("rezero")


def test_bad_usage():
    source = checkpoint()
    assert "needs --from" in run("convert", source, "x", expect=2)
    assert "--to: expected one of rf, hf, tf, keras-h5; found \"onnx\"" in convert("rf", "onnx", source, "x", expect=2)
    assert "needs IN and OUT" in run("convert", "--from", "rf", "--to", "hf", source, expect=2)
    assert "--weights belongs to --to hf" in convert("rf", "tf", source, "x", "--weights", "zip", expect=2)
    assert "belong to other formats" in convert("rf", "tf", source, "x", "--vocab", "vocab.txt", expect=2)
    os.mkdir("there")
    assert "exists already" in convert("rf", "hf", source, "there", expect=2)
    assert "neither a checkpoint nor" in convert("rf", "hf", "there", "x", expect=2)
    assert "neither model.safetensors nor pytorch_model.bin" in convert("hf", "rf", "there", "x", expect=2)
    assert "no file ends in .index" in convert("tf", "rf", "there", "x", expect=2)
    assert "no weight file of Keras" in convert("keras-h5", "rf", "there", "x", expect=2)
    assert "does not exist" in convert("keras-h5", "rf", "absent", "x", expect=2)
    assert not os.path.exists("x") and not os.path.exists("x.partial")


if __name__ == "__main__":
    main(globals())
