#!/usr/bin/python3
"""build-corpus through the command line: the same bytes on any number of ranks and after kills, and what it counts and refuses."""

import gzip
import json
import lzma
import os
import random
import subprocess
import sys
import time

import h5py

sys.path.insert(0, os.path.join(os.environ["RF_SOURCE_DIR"], "tests/system"))
from harness import ROFORMER, main, run, sets, tiny, write_text  # noqa: E402


SHARD = 300_000  # tokens: big_text() makes three shards


def write(path, content):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as out:
        out.write(content if isinstance(content, bytes) else content.encode())


def vocab():
    """Specials and every Chinese character the tests use."""
    if not os.path.exists("vocab.txt"):
        characters = [chr(0x4E00 + i) for i in range(1700)]
        write("vocab.txt", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "。", "，", *characters]) + "\n")
    return "vocab.txt"


def build(text, output, ranks=1, expect=0, restart=False, **more):
    settings = dict(text=text, vocab=vocab(), output=output, segmenter__name="none")
    settings.update(more)
    return run("build-corpus", *sets(**settings), *(["--restart"] if restart else []), ranks=ranks, expect=expect)


def documents(folder, words=False):
    """Texts of a corpus, with | between words where asked for."""
    tokens = open("vocab.txt", encoding="utf-8").read().split("\n")
    out = []
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".h5")):
        with h5py.File(f"{folder}/{name}", "r") as shard:
            ids, bits, ends = shard["tokens"][:], shard["word_start"][:], shard["document_offsets"][:]
        for begin, end in zip(ends[:-1], ends[1:]):
            starts = [(bits[t // 8] >> (t % 8)) & 1 for t in range(int(begin), int(end))]
            out.append("".join(("|" if words and s and i else "") + tokens[t] for i, (t, s) in enumerate(zip(ids[begin:end], starts))))
    return out


def content(folder):
    assert not os.path.exists(f"{folder}/.partial")
    return {name: open(f"{folder}/{name}", "rb").read() for name in sorted(os.listdir(folder))}


def big_text():
    """About 2.5 MiB in two files: several blocks."""
    if not os.path.exists("big"):
        os.makedirs("big")
        write_text("big/a.txt", 6000, seed=1)
        write_text("big/b.txt", 4800, seed=2)
    return "big"


def test_ranks_write_the_same_bytes_in_one_shard_or_many():
    for shard_tokens, other in ((1 << 28, 3), (SHARD, 2)):
        for ranks in (1, other):
            build(big_text(), f"r{ranks}-{shard_tokens}", ranks=ranks, shard_tokens=shard_tokens)
        one = content(f"r1-{shard_tokens}")
        assert one == content(f"r{other}-{shard_tokens}")
        assert sum(name.endswith(".h5") for name in one) == (1 if shard_tokens > 1e6 else 3), list(one)
    assert documents(f"r1-{SHARD}") == documents(f"r1-{1 << 28}")
    with open("big/a.txt", encoding="utf-8") as text:
        assert documents(f"r1-{SHARD}")[:6000] == text.read().split("\n")[:-1]
    run("verify", f"r2-{SHARD}", ranks=2)


def test_compressed_files_are_read_like_plain_ones():
    lines = "".join(chr(0x4E00 + i) * 5 + "\n" for i in range(50))
    write("plain/t.txt", lines)
    write("gz/t.txt.gz", gzip.compress(lines.encode()))
    write("xz/t.txt.xz", lzma.compress(lines.encode()))
    write("zst/t.txt.zst", subprocess.run(["zstd", "-q"], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout)
    for kind in ("plain", "gz", "xz", "zst"):
        build(kind, f"of-{kind}")
        assert documents(f"of-{kind}") == lines.split("\n")[:-1], kind


def test_compressed_files_are_shared_out_and_make_the_same_bytes():
    # Dealt whole, and one too large for that; names in another order than sizes.
    rng = random.Random(11)
    for number, size in enumerate([3, 1, 900, 5, 400, 0, 600, 500, 2, 9000, 450]):
        lines = ["".join(chr(0x4E00 + rng.randrange(1700)) for _ in range(200)) for _ in range(size)]
        content_of = "".join(line + "\n" for line in lines).encode()
        write(f"dealt/{number:02}.txt.xz", lzma.compress(content_of, preset=0))
        write(f"dealt-plain/{number:02}.txt", content_of)
    for ranks in (1, 2, 3):
        build("dealt", f"dealt{ranks}", ranks=ranks, shard_tokens=SHARD)
        assert content(f"dealt{ranks}") == content("dealt1"), ranks
    build("dealt-plain", "dealt0", shard_tokens=SHARD)
    assert documents("dealt0") == documents("dealt1")


def test_folders_and_globs_in_order():
    write("many/b/2.txt", "丁丁\n")
    write("many/a.jsonl", '{"text": "丙丙"}\n\n{"content": "丑丑"}\n')
    write("one-1.txt", "万万\n")
    write("one-2.txt", "丈丈\n")
    build('["one-*.txt", "many"]', "globbed")
    assert documents("globbed") == ["万万", "丈丈", "丙丙", "丑丑", "丁丁"]


def test_paragraphs_end_at_blank_lines_and_files():
    write("para/1.txt", "一一\n丁丁\n \t\n\n七七\n\n\n")
    write("para/2.txt", "万万\n丈丈")
    write("para/3.txt", "三三\n")
    build("para", "paragraphs", format="paragraphs")
    assert documents("paragraphs") == ["一一丁丁", "七七", "万万丈丈", "三三"]


def test_words_of_records_are_the_words():
    write("words.jsonl", '{"words": ["一丁", "七", "万丈三"]}\n{"text": "上下"}\n')
    build("words.jsonl", "words")
    assert documents("words", words=True) == ["一丁|七|万丈三", "上|下"]


def test_long_documents_are_split_after_sentences_or_cut():
    text = "一" * 9 + "。" + "丁" * 30
    write("long.txt", text + "\n")
    build("long.txt", "split", document__max_characters=12)
    assert documents("split") == ["一" * 9 + "。", "丁" * 12, "丁" * 12, "丁" * 6]
    build("long.txt", "cut", document__max_characters=12, document__overflow="cut")
    assert documents("cut") == [text[:12]]


def test_duplicates_are_dropped_in_the_order_of_the_input_and_counted():
    lines = ["一丁", "七", "一丁", "万", "七", "七"]
    write("doubled.txt", "\n".join(lines) + "\n")
    text = build("doubled.txt", "unique")
    assert "3 duplicate" in text, text
    assert documents("unique") == ["一丁", "七", "万"]
    assert "0 duplicate" in build("doubled.txt", "doubled", drop_duplicates="false")
    assert documents("doubled") == lines


def test_length_filters_are_counted():
    write("lengths.txt", "一\n一丁\n一丁七\n一丁七万\n一丁七万丈\n")
    text = build("lengths.txt", "lengths", document__min_characters=2, document__drop_above=4)
    assert "1 short and 1 long documents" in text, text
    assert documents("lengths") == ["一丁", "一丁七", "一丁七万"]
    text = build("lengths.txt", "lengths2", expect=2, document__min_characters=5, document__drop_above=4)
    assert "document.drop_above" in text, text


def test_near_duplicates_are_dropped_on_request_for_any_ranks():
    rng = random.Random(5)
    originals = ["".join(chr(0x4E00 + rng.randrange(1700)) for _ in range(300)) for _ in range(3000)]
    near = [text[:150] + "上" + text[151:] for text in originals[:200]]  # 5 of 296 n-grams differ: similarity 0.967
    write("near/1.txt", "\n".join(originals) + "\n")
    write("near/2.txt", "\n".join(near) + "\n")
    text = build("near", "all")
    assert "nearly" not in text and len(documents("all")) == 3200, text
    for ranks in (1, 2):
        text = build("near", f"near{ranks}", ranks=ranks, near_duplicates__drop="true")
        # 1 - (1 - 0.967^8)^14 of them are found: all but 6e-10.
        assert "200 nearly duplicate" in text, text
    assert documents("near1") == originals
    assert content("near1") == content("near2")


def test_bad_lines_name_file_and_line_whichever_rank_meets_them():
    write("bad/1.jsonl", '{"text": "一"}\n' * 120_000)  # more than a block, so that the second rank meets the bad line
    write("bad/2.jsonl", '{"text": "丁"}\n{"text": 3}\n{"title": "x"}\n{"text": "七\n')
    for ranks in (1, 2):
        text = build("bad", "refused", ranks=ranks, expect=2)
        assert "bad/2.jsonl:2: " in text and "not a string" in text, text
    assert not os.path.exists("refused/corpus.json")
    text = build("bad", "refused", ranks=2, expect=2, max_bad_lines=2)
    assert "more than max_bad_lines = 2" in text or "3 malformed lines, at most 2" in text, text
    text = build("bad", "allowed", ranks=2, max_bad_lines=3)
    assert "3 bad lines" in text, text
    assert documents("allowed") == ["一", "丁"]


def test_killed_builds_continue_to_the_same_bytes_and_never_show_half_a_corpus():
    settings = dict(shard_tokens=SHARD)
    begin = time.time()
    build(big_text(), "whole", **settings)
    seconds = time.time() - begin
    expected = content("whole")
    rng = random.Random(3)
    killed = 0
    for _ in range(5):
        command = [ROFORMER, "build-corpus", *sets(text="big", vocab="vocab.txt", output="killed", segmenter__name="none", **settings)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.02, 1.1 * seconds))
        process.kill()
        killed += process.wait() == -9
        shards = [name for name in os.listdir("killed") if name.endswith(".h5")] if os.path.isdir("killed") else []
        assert len(shards) in (0, 3) or refuses_to_train("killed", len(shards))
        if os.path.exists("killed/corpus.json"):
            assert len(shards) == 3
            build(big_text(), "killed", **settings)
            assert content("killed") == expected
            remove("killed")
    build(big_text(), "killed", ranks=2, **settings)
    assert content("killed") == expected
    assert killed > 0


def remove(folder):
    subprocess.run(["rm", "-r", folder], check=True)


def refuses_to_train(folder, shards):
    text = run("pretrain", *tiny("never", corpus=folder, model__vocab_size=1707), expect=2)
    # A build that was killed has left its working folder and is told from a copy that lost shards.
    unfinished = os.path.exists(f"{folder}/.partial") and not os.path.exists(f"{folder}/corpus.json")
    return ("is not complete" if unfinished else f"folder {folder} holds {shards} of the 3 shards") in text


def test_a_folder_with_a_part_of_its_shards_is_refused():
    build(big_text(), "part", shard_tokens=SHARD)
    os.remove("part/corpus-00001-of-00003.h5")
    os.remove("part/corpus-00001-of-00003.h5.digest")
    assert refuses_to_train("part", 2)
    text = build(big_text(), "part", shard_tokens=SHARD, expect=2)
    assert "2 of the 3 shards" in text and "--restart" in text, text
    build(big_text(), "part", shard_tokens=SHARD, restart=True)
    assert len(content("part")) == 8  # three shards and corpus.json, each with its digest


def test_torn_parts_and_changed_sources_are_worked_on_again():
    def source(last):
        write("src/a.txt", "一丁七万丈三上下\n" * 60_000)  # two blocks
        write("src/b.txt", last)
        for name in ("a", "b"):
            os.utime(f"src/{name}.txt", (1000, 1000))

    source(b"\xff\xff\xff\n")  # as long as the good line
    build("src", "torn", expect=2, drop_duplicates="false")
    assert os.path.exists("torn/.partial/part-000000-00000001")
    part = "torn/.partial/part-000000-00000000"
    data = open(part, "rb").read()
    write(part, data[: len(data) // 2])
    source("上\n".encode())
    build("src", "torn", drop_duplicates="false")
    build("src", "fresh", drop_duplicates="false")
    assert content("torn") == content("fresh")

    write("src2/a.txt", "一\n")
    write("src2/b.txt", b"\xff\xff\xff\n")
    build("src2", "changed", expect=2)
    write("src2/a.txt", "丁\n")  # the same size, at another time
    write("src2/b.txt", "上\n")
    build("src2", "changed")
    assert documents("changed") == ["丁", "上"]


def test_what_lies_in_the_output_folder_is_not_mixed_in():
    write("x.txt", "一\n")
    write("y.txt", "丁丁\n")
    build("x.txt", "mine")
    before = content("mine")
    assert "already built" in build("x.txt", "mine")
    text = build("y.txt", "mine", expect=2)
    assert "other input or settings" in text and content("mine") == before, text
    write("mine/corpus-notes.md", "mine")
    build("y.txt", "mine", restart=True)
    assert documents("mine") == ["丁丁"] and os.path.exists("mine/corpus-notes.md")
    # Shards without corpus.json are somebody's own.
    os.remove("mine/corpus.json")
    text = build("x.txt", "mine", expect=2)
    assert "without their corpus.json" in text, text


if __name__ == "__main__":
    main(globals())
