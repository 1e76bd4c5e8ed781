"""``make translations``: add new messages to the Chinese catalogue, remove unused ones.

Entries are sorted by the file that contains the message, one line each, so that two people who
edit messages of different packages change different places of the catalogue.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from tests.support.sources import CATALOGUE, PACKAGE, setting_sentences


def main() -> None:
    """Rewrite ``xmr.po``; new messages get an empty translation."""
    with CATALOGUE.open("rb") as file:
        known = read_po(file, locale="zh")
    updated = Catalog(locale="zh", fuzzy=False)
    with redirect_stderr(StringIO()):  # Babel warns of f-strings among the arguments of tr()
        found = sorted(extract_from_dir(PACKAGE, [("**.py", "python")], keywords={"tr": None}))
    for path, _, message, _, _ in found:
        entry = known.get(message)
        translation = entry.string if entry is not None else ""
        updated.add(message, translation, [(f"bagformer_cli/{path}", None)], flags=())
    for sentence in setting_sentences():
        if sentence.text not in updated:
            entry = known.get(sentence.text)
            place = f"bagformer_cli/{sentence.where.partition(':')[0].replace('.', '/')}.py"
            translation = entry.string if entry is not None else ""
            updated.add(sentence.text, translation, [(place, None)], flags=())
    header = CATALOGUE.read_text("utf-8").partition("\n\n")[0] + "\n\n"
    with CATALOGUE.open("wb") as file:
        file.write(header.encode())
        write_po(file, updated, width=None, omit_header=True, sort_by_file=True)
    empty = [message.id for message in updated if message.id and not message.string]
    print(f"{len(updated)} messages, {len(empty)} without a translation")
    for message in empty:
        print(f"  {message!r}")


if __name__ == "__main__":
    main()
