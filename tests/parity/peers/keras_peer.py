#!/usr/bin/env python3
"""bert4keras under TensorFlow beside this program.

    keras_peer.py write OUT                      a small model as checkpoint and as H5, and its outputs: OUT/{tf,keras,expected_bert4keras.h5}
    keras_peer.py tf FOLDER LINES OUT.h5         build_transformer_model from FOLDER's checkpoint: hidden states and logits of the lines of a file
    keras_peer.py keras FOLDER LINES OUT.h5      the same with load_weights of FOLDER's roformer.v2.weights

Needs tensorflow-cpu 2.15.1 and bert4keras 0.11.5. Its norm has epsilon 1e-7 as it comes; it is set to what the released weights were trained with."""

import os
import sys

os.environ["TF_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import h5py
import numpy as np
import tensorflow as tf

tf.keras.layers  # a lazy module, which bert4keras would look into for ever before it is loaded
from tensorflow.python.eager import context

# Names of TensorFlow 1 that saving a checkpoint uses; it reads variables inside a graph of its own, where only eager mode finds them.
tf.Session, tf.train.Saver = tf.compat.v1.Session, tf.compat.v1.train.Saver
import bert4keras.models
from bert4keras.backend import K
from bert4keras.models import build_transformer_model
from bert4keras.tokenizers import Tokenizer

import peer


def eager_values(variables):
    with context.eager_mode():
        return [variable.numpy() for variable in variables]


bert4keras.models.K.batch_get_value = eager_values


def build(config, checkpoint=None):
    K.set_epsilon(peer.EPSILON)
    return build_transformer_model(config, checkpoint, model="roformer_v2", with_mlm="linear", return_keras_model=False)


def outputs(built, vocab, lines):
    last = built.model.get_layer(f"Transformer-{built.num_hidden_layers - 1}-FeedForward-Norm").output
    model = tf.keras.models.Model(built.model.inputs, [last, built.model.output])
    tokenizer = Tokenizer(vocab, do_lower_case=True)
    hidden, logits, all_ids = [], [], []
    for line in lines:
        ids, segments = tokenizer.encode(line)
        h, y = model([tf.constant([ids]), tf.constant([segments])], training=False)
        hidden.append(np.asarray(h)[0])
        logits.append(np.asarray(y)[0])
        all_ids += ids
    return np.concatenate(hidden), np.concatenate(logits), np.array(all_ids, np.int32)


def save(path, hidden, logits, ids):
    with h5py.File(path, "w", libver="earliest", track_order=False) as file:
        file["hidden"], file["logits"], file["ids"] = hidden, logits, ids


def write(out):
    peer.write_model(os.path.join(out, "tf"), "bert_config.json")
    peer.write_model(os.path.join(out, "keras"), "bert_config.json")
    built = build(os.path.join(out, "tf", "bert_config.json"))
    built.load_weights_from_checkpoint(peer.weights())  # a dictionary serves as a checkpoint
    vocab = os.path.abspath(os.path.join(out, "tf", "vocab.txt"))
    here = os.getcwd()
    os.chdir(os.path.join(out, "tf"))  # so that the file `checkpoint` holds a relative path
    built.save_weights_as_checkpoint("./bert_model.ckpt")
    os.remove("bert_model.ckpt.meta")  # a graph, which weights do not need
    os.chdir(here)
    built.model.save_weights(os.path.join(out, "keras", "roformer.v2.weights"), save_format="h5")
    save(os.path.join(out, "expected_bert4keras.h5"), *outputs(built, vocab, peer.sentences()))


def main():
    if sys.argv[1] == "write":
        return write(sys.argv[2])
    form, folder, lines, out = sys.argv[1:5]
    config = os.path.join(folder, "bert_config.json")
    built = build(config, os.path.join(folder, "bert_model.ckpt") if form == "tf" else None)
    if form == "keras":
        built.model.load_weights(os.path.join(folder, "roformer.v2.weights"))
    with open(lines, encoding="utf-8") as file:
        save(out, *outputs(built, os.path.join(folder, "vocab.txt"), file.read().splitlines()))


if __name__ == "__main__":
    main()
