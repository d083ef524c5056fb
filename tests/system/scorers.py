"""Scores written here independently of the program: exact match and F1 by the rules of CMRC 2018, F1 of sets by type."""

import re

PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def plain(text):
    return "".join(c for c in text.lower().strip() if c not in PUNCTUATION)


def words(run):
    """Treebank's rules, one substitution after another."""
    run = re.sub(r"""([^.])\.([\])}>"'» ]*)\s*$""", r"\1 . \2", run)
    run = re.sub(r"\.{2,}", r" \g<0> ", run)
    run = re.sub(r",(?![0-9０-９])", " , ", run)
    run = re.sub(r"""[;@#$%&?!()\[\]{}<>"«»‘„]""", r" \g<0> ", run)
    run = re.sub(r"([^'\s])('s|'m|'d|'ll|'re|'ve|n't|')(?=\s|$)", r"\1 \2", run)
    return run.split()


def segments(text):
    return [s for part in re.split("([\u4e00-\u9fa5])", plain(text)) for s in ([part] if re.fullmatch("[\u4e00-\u9fa5]", part) else words(part))]


def common_run(a, b):
    """By length, from the longest: whether some run of a stands in b."""
    for size in range(min(len(a), len(b)), 0, -1):
        of_b = {tuple(b[j:j + size]) for j in range(len(b) - size + 1)}
        if any(tuple(a[i:i + size]) in of_b for i in range(len(a) - size + 1)):
            return size
    return 0


def cmrc(answer, right):
    best, given = 0, segments(answer)
    for wanted in map(segments, right):
        common = common_run(wanted, given)
        if common:
            precision, recall = common / len(given), common / len(wanted)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(plain(answer) == plain(r) for r in right)), best


def f1_of(pairs_by_type):
    """Micro and macro over (right, found) sets of each type; a type without either does not count."""
    counts = [(len(r & f), len(f), len(r)) for r, f in pairs_by_type.values() if r or f]
    both, found, right = map(sum, zip(*counts))
    precision, recall = both / found, both / right
    each = [0 if b == 0 else 2 * (b / f) * (b / r) / (b / f + b / r) for b, f, r in counts]
    return 2 * precision * recall / (precision + recall), sum(each) / len(each)
