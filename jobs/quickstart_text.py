#!/usr/bin/python3
"""Chinese prose out of unpacked Debian packages: quickstart_text.py FOLDER OUT.jsonl

Takes HTML pages, manual pages (roff), fortunes and plain text, strips markup, keeps paragraphs that are mostly simplified
Chinese, joins neighbours of one file into documents of a few hundred characters, and drops paragraphs seen before. Each
document says its source: the manual or the part of one that it is from."""

import gzip
import html
import json
import os
import re
import sys

HAN = re.compile(r"[\u4e00-\u9fff]")
# Frequent traditional characters that simplified text does not use.
TRADITIONAL = set("們個來時國會為這說對與後發經過還動進實現樣點從體處當無種機關開應間義問題術設備標準網際檔確認選擇變數讀寫輸東車門長書學樂")

# Sources by a folder of the path; manual pages are told by section.
SOURCES = {"swriter": "Writer", "scalc": "Calc", "simpress": "Impress", "sbasic": "Basic", "libreoffice": "LibreOffice",
           "debian-reference": "Debian Reference", "fortunes": "poetry", **{f"man{n}": f"man {n}" for n in range(1, 9)}}


def source_of(path):
    folders = path.split("/")
    return next((name for folder, name in SOURCES.items() if folder in folders), "other")


def strip_html(text):
    text = re.sub(r"(?is)<(script|style|head|pre|code|nav).*?</\1>", " ", text)
    text = re.sub(r"(?i)</?(p|div|li|h[1-6]|td|th|tr|dd|dt|br|section|title)\b[^>]*>", "\n", text)
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def strip_roff(text):
    lines = []
    for line in text.splitlines():
        if line.startswith((".\\\"", "'\\\"")):
            continue
        if line.startswith((".SH", ".SS", ".TP", ".PP", ".P", ".LP", ".IP", ".br", ".sp", ".RS", ".RE", ".TH", ".nf", ".fi")):
            lines.append("")
            continue
        line = re.sub(r"^\.(B|I|BR|BI|IR|RB|RI|IB|SM)\s+", "", line)
        if line.startswith((".", "'")):
            continue
        line = re.sub(r"\\f[BIRP1-4]|\\f\(..|\\f\[[^]]*\]|\\s[-+]?\d|\\&|\\[|^/c]", "", line)
        lines.append(line.replace("\\-", "-").replace("\\e", "\\").replace("\\(aq", "'"))
    # A line break inside a paragraph is no space in Chinese.
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])", "", "\n".join(lines))


def strip_fortunes(text):
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.sub(r"\n%\n", "\n\n", text)


def paragraphs(path):
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            raw = file.read(8 << 20)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    name = path.removesuffix(".gz")
    if name.endswith((".html", ".xhtml", ".htm")):
        text = strip_html(text)
    elif re.search(r"/man\d/", name):
        text = strip_roff(text)
    elif "fortunes" in name:
        text = strip_fortunes(text)
    elif not name.endswith(".txt"):
        return
    for paragraph in re.split(r"\n\s*\n|\n(?=\S)", text):
        paragraph = re.sub(r"\s+", " ", paragraph).strip()
        han = len(HAN.findall(paragraph))
        if han < 12 or han < 0.55 * len(paragraph.replace(" ", "")):
            continue
        if sum(c in TRADITIONAL for c in paragraph) > 0.02 * han:
            continue
        yield paragraph


def main():
    folder, output = sys.argv[1:]
    seen, documents, characters = set(), 0, 0
    with open(output + ".partial", "w", encoding="utf-8") as out:
        for base, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                if name.startswith("changelog"):
                    continue
                path, gathered = os.path.join(base, name), ""
                for paragraph in [*paragraphs(path), None]:
                    if paragraph is not None and paragraph in seen:
                        continue
                    if gathered and (paragraph is None or len(gathered) + len(paragraph) > 600):
                        out.write(json.dumps({"text": gathered, "source": source_of(path)}, ensure_ascii=False) + "\n")
                        documents += 1
                        characters += len(gathered)
                        gathered = ""
                    if paragraph is not None:
                        seen.add(paragraph)
                        gathered += ("\n" if gathered else "") + paragraph
    if documents < 100:
        sys.exit(f"quickstart_text.py: only {documents} documents found under {folder}")
    os.replace(output + ".partial", output)
    print(f"{documents} documents, {characters} characters -> {output}")


if __name__ == "__main__":
    main()
