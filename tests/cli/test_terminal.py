"""Text on terminals: nothing controls them, lines fit, words and punctuation stay whole."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

import bagformer_cli
from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import with_dashed_texts
from bagformer_cli.cli.layout import column_widths
from bagformer_cli.cli.printable import one_line, printable, printable_json
from bagformer_cli.cli.tables import fact_lines, hanging, table_lines
from bagformer_cli.wrapping import display_width, wrap

CLOSING = "，。、；：？！）》”’％…」』】"
CATALOGUE = Path(bagformer_cli.__file__).parent / "locales/zh/LC_MESSAGES/xmr.po"
WIDTHS = (80, 60, 40)


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding)


# --- nothing controls a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;X\x07", "\\x1b]0;X\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x08\x7f", "a\\rb\\x08\\x7f"),
        ("\u202e倒\u2066", "\\u202e倒\\u2066"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("\U000e0041", "\\U000e0041"),
        ("红色\n连衣裙\t👨‍👩‍👧 é", "红色\n连衣裙\t👨‍👩‍👧 é"),
    ],
    ids=ascii,
)
def test_characters_that_a_terminal_obeys_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text())
def test_a_cell_stays_on_its_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert all(c.isprintable() or c in "\u200b\u200c\u200d\xa0\u3000" or ord(c) > 0xA0
               for c in shown)  # fmt: skip


@given(st.recursive(st.text() | st.none() | st.integers(), st.lists, max_leaves=5))
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "ascii"])
def test_json_stays_the_same_value_in_every_encoding(encoding: str, value: Any) -> None:
    out = stream(encoding)
    text = printable_json(json.dumps(value, ensure_ascii=False), out)
    assert json.loads(text) == value
    assert printable(text) == text
    out.write(text)


def test_every_way_of_printing_is_safe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.reset()
    evil = "红\x1b]0;X\x07\x9b2J\u202e\r裙"
    console.say(evil)
    console.styled([(evil, "bold")])
    console.heading(evil)
    console.facts({evil: evil})
    console.table([evil], [[evil]], title=evil, notes=[evil])
    console.next_steps([(evil, evil)])
    console.info(evil)
    console.warn(evil, evil)
    console.done(evil)
    console.error(bagformer_cli.errors.InputError(evil, where=evil, found=evil, hint=evil))
    console.print_json({evil: evil})
    with bars.progress() as progress, progress.task(evil, 3, evil) as task:
        task.advance(3, **{evil: evil})
        progress.warn(evil)
    out, err = capsys.readouterr()
    for character in "\x1b\x07\x9b\u202e\r":
        assert character not in out + err
    assert json.loads(out.splitlines()[-1]) == {evil: evil}


# --- lines fit


words = st.text("ab红裙，。（）“”[] \u0301", max_size=60)


@given(words, st.integers(8, 40))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = wrap(text, width, cut=True)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line and display_width(line) <= width for line in lines)


def sentences() -> list[str]:
    with CATALOGUE.open("rb") as file:
        return [str(m.string).replace("\u2060", "") for m in read_po(file) if m.id and m.string]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_chinese_line_begins_with_closing_punctuation_or_ends_with_a_bracket(width: int) -> None:
    for sentence in sentences():
        for line in wrap(sentence, width):
            assert line[0] not in CLOSING or sentence.startswith(line[0]), (line, sentence)
            assert line[-1] not in "（《“「【", (line, sentence)
            # Only a word without a place to break, such as a path, may be longer than a line.
            assert display_width(line) <= width or " " not in line, (line, sentence)


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_and_facts_fit_every_terminal(width: int) -> None:
    title = "红色碎花连衣裙，2024年新款夏季女装（显瘦、收腰）；法式复古中长款A字裙"
    rows = [[1, 0.25, "sku-00001-abcdefgh", title], [10, None, "p" * 90, "evil\n" * 9]]
    notes = ["price 199.5\u00a0· brand L'Oréal 巴黎欧莱雅", ""]
    lines = list(table_lines(["rank", "score", "id", "title"], rows, width, notes=notes))
    lines += list(fact_lines({"model": "/a/long/path" * 9, "标题": title}, width))
    lines += list(hanging([("Warning  ", "")], title * 3, width))
    texts = ["".join(text for text, _ in line) for line in lines]
    # A path stays whole where it is a fact, so that it can be copied.
    assert all(display_width(text) <= width or "/a/long/path/a" in text for text in texts), texts
    assert not any(text.strip()[:1] in CLOSING for text in texts if text.strip())
    assert "".join(texts).replace(" ", "").count("A字裙") >= 1


def test_a_table_that_does_not_fit_becomes_a_list_of_values() -> None:
    lines = table_lines(["rank", "score", "title"], [[1, 0.5, "红裙"], [2, 0.25, "白鞋"]], 16)
    texts = ["".join(text for text, _ in line) for line in lines]
    assert [text.split() for text in texts] == [
        ["rank", "1"], ["score", "0.50"], ["title", "红裙"], [],
        ["rank", "2"], ["score", "0.25"], ["title", "白鞋"],
    ]  # fmt: skip


def test_rank_score_id_and_title_share_a_line_at_60_columns() -> None:
    rows = [[n, 0.5, f"sku{n}", "红色碎花连衣裙夏季新款"] for n in range(1, 4)]
    lines = list(table_lines(["rank", "score", "id", "title"], rows, 60, notes=["price 3"] * 3))
    texts = ["".join(text for text, _ in line) for line in lines]
    assert [text.split() for text in texts[2::2]] == [
        [str(n), "0.50", f"sku{n}", "红色碎花连衣裙夏季新款"] for n in range(1, 4)
    ]
    assert [text.strip() for text in texts[3::2]] == ["price 3"] * 3


def test_numbers_are_never_broken() -> None:
    widths = column_widths(["mean recall", "name"], [["1,234,567", "红" * 50]], [True, False], 24)
    assert widths is not None
    assert widths[0] >= len("1,234,567")
    assert sum(widths) + 2 == 24
    assert column_widths(["a", "b"], [["1" * 15, "2" * 15]], [True, True], 24) is None


# --- a bar


@pytest.mark.parametrize("width", [*WIDTHS, 30])
def test_a_bar_keeps_its_count_and_time_and_its_losses_below(width: int) -> None:
    state = bars._TaskState("训练 demo/很长的名称-很长的名称-很长的名称", 4000, "{n} 步")
    state.started -= 100
    state.advance(1000, {"loss": 1.25, "itc": 0.5, "itm": 0.25, "R@1": 12.5})
    lines = ["".join(text for text, _ in line) for line in bars.bar_lines(state, "", width)]
    assert all(display_width(line) <= width for line in lines)
    whole = [number for number, line in enumerate(lines) if "1,000/4,000 步  5 min" in line]
    assert whole == [0 if width > 45 else 1]
    assert lines[whole[0] + 1].strip().startswith("loss 1.25")


# --- texts that begin with a dash


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["-5度睡袋"], ["-5度睡袋"]),
        (["红裙", "-5度睡袋", "--json"], ["红裙", "-5度睡袋"]),
        (["-k", "-5", "-A字裙"], ["-A字裙"]),
        (["--红", "-k20", "--json"], ["--红"]),
        (["--beta", "-0.5", "-零下"], ["-零下"]),
    ],
    ids=ascii,
)
def test_a_text_may_begin_with_a_dash(arguments: list[str], texts: list[str]) -> None:
    class Parameter:
        def __init__(self, *names: str, flag: bool = False) -> None:
            self.opts, self.is_flag = list(names), flag
            self.param_type_name = "option"

    known = [Parameter("-k"), Parameter("--beta"), Parameter("--json", flag=True)]
    found = with_dashed_texts(arguments, known)
    assert found[found.index("--") + 1 :] == texts
    assert sorted(found) == sorted([*arguments, "--"])


@pytest.mark.parametrize("arguments", [["红", "-k", "3"], ["--", "-5"], ["--jsno"], ["-x"], ["-"]])
def test_other_arguments_stay_as_they_are(arguments: list[str]) -> None:
    assert with_dashed_texts(arguments, []) == arguments


def test_an_option_that_may_be_a_text_says_how(xmr: Callable[..., Any]) -> None:
    run = xmr("bags", "-xyz")
    assert run.code == 2
    assert "goes after `--`: xmr bags -- -x…" in run.err


# --- errors name the option


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("search --image gone.jpg", "gone.jpg (from --image)"),
        ("bags 红 --lexicon gone.txt", "gone.txt (from --lexicon)"),
        ("index info gone", "gone (from URI)"),
        ("index build gone.csv i --encoding x", "--encoding"),
        ("doctor --json=1", "takes no value"),
    ],
)
def test_an_error_names_the_option_of_its_value(
    xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: str, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = xmr(*command.split())
    assert run.code == 2
    assert says in run.err


def test_a_suggestion_is_similar(xmr: Callable[..., Any]) -> None:
    assert "Did you mean" not in xmr("dict", "nope").err
    assert "Did you mean `xmr dict mine`" in xmr("dict", "mien").err


# --- streams


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("bags 红裙 | true", "141", "", ""),
        ("bags 红裙 >&-", "0", "", ""),
        ("bags --input gone.txt 2>&1 | true", "2", "", ""),
        ("bags --input gone.txt 2>&-", "2", "", ""),
        ("bags 红裙 >/dev/full", "2", "", "disk is full"),
    ],
)
def test_broken_streams_end_quietly(command: str, code: str, out: str, err: str) -> None:
    line = f"{sys.executable} -m bagformer_cli.cli.main {command}; echo ${{PIPESTATUS[0]}} >&3"
    run = subprocess.run(["bash", "-c", f"exec 3>&1; {line}"], capture_output=True, check=False)
    *shown, last = run.stdout.decode().splitlines()
    assert last == code
    assert shown == []
    assert err in run.stderr.decode()
    assert "Traceback" not in run.stderr.decode()
    assert bool(err) == bool(run.stderr)


def test_ascii_signs_replace_those_that_a_stream_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = stream("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    console.reset()
    console.say("text → image │ 5 × – 红")
    out.flush()
    assert out.buffer.getvalue() == b"text -> image | 5 x - \\u7ea2\n"  # type: ignore[attr-defined]


def test_mining_that_finds_nothing_says_so(xmr: Callable[..., Any], tmp_path: Path) -> None:
    titles = tmp_path / "titles.txt"
    titles.write_text("红色连衣裙\n", "utf-8")
    run = xmr("dict", "mine", str(titles))
    assert run.code == 0
    assert run.out.startswith("No new words.")
