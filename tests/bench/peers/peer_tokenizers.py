"""One process of the peer of tests/bench/text.py: Hugging Face tokenizers (Rust), BERT's WordPiece over the same vocabulary, one thread.

peer_tokenizers.py VOCAB LINES prints one line of JSON: processor seconds of the quickest of three passes, tokens, bytes."""

import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402


def main():
    with open(sys.argv[2], encoding="utf-8", newline="\n") as file:
        documents = file.read().split("\n")[:-1]
    tokenizer = tokenizers.BertWordPieceTokenizer(sys.argv[1], lowercase=True)
    best, tokens = float("inf"), 0
    for _ in range(3):
        begin = time.process_time()
        tokens = 0
        for at in range(0, len(documents), 256):
            tokens += sum(len(e) for e in tokenizer.encode_batch(documents[at : at + 256], add_special_tokens=False))
        best = min(best, time.process_time() - begin)
    print(json.dumps({"version": tokenizers.__version__, "seconds": best, "tokens": tokens, "bytes": sum(len(d.encode()) for d in documents)}))


if __name__ == "__main__":
    main()
