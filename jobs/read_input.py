#!/usr/bin/env python3
"""What a batch script must know of an input before the program reads it, --set included:

    read_input.py output INPUT [ARGUMENT ...]        the output folder
    read_input.py text PART PARTS INPUT [ARGUMENT …]  the text files of one of so many parts, as a JSON list: the largest first, each to the
                                                     part that has least so far

Everything else, and every other fault of an input, is the program's to judge."""

import glob
import json
import os
import sys


def assignments(arguments):
    """key=value of every --set, in both its forms."""
    words = iter(arguments)
    for word in words:
        if word == "--set":
            yield next(words, "")
        elif word.startswith("--set="):
            yield word[len("--set="):]


def value_of(key, path, arguments):
    with open(path, encoding="utf-8") as file:
        found = json.load(file).get(key, "")
    for name, _, text in (assignment.partition("=") for assignment in assignments(arguments)):
        if name == key:
            try:
                found = json.loads(text)
            except ValueError:
                found = text
    return found


def files_of(text):
    """As the program expands them: files, folders with all in them, globs."""
    for name in text if isinstance(text, list) else [text]:
        for path in [name] if os.path.exists(name) else sorted(glob.glob(name)):
            if os.path.isdir(path):
                yield from (os.path.join(base, one) for base, _, names in os.walk(path) for one in names)
            else:
                yield path


def part_of(files, part, parts):
    loads, dealt = [0] * parts, [[] for _ in range(parts)]
    for path in sorted(set(files), key=lambda path: (-os.path.getsize(path), path)):
        least = loads.index(min(loads))
        loads[least] += os.path.getsize(path)
        dealt[least].append(path)
    return sorted(dealt[part])


def main(words):
    if words[0] == "output":
        print(value_of("output", words[1], words[2:]))
        return
    part, parts, path = int(words[1]), int(words[2]), words[3]
    text = value_of("text", path, words[4:])
    files = list(files_of(text))
    if not files:
        sys.exit(f"error: jobs: {path}: text: nothing matches {json.dumps(text, ensure_ascii=False)}")
    print(json.dumps(part_of(files, part, parts), ensure_ascii=False))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, AttributeError, TypeError) as e:
        sys.exit(f"error: jobs: the input cannot be read: {e}")
