from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.search.bm25 import BM25Index
from engine.words import analyser
from engine.words.analyser import MAX_TERM_LENGTH, analyse, analyse_query, words_of_query

# Each whole, the same letters as separate words, and queries for parts or spellings of it.
WHOLES = {
    "getUserName": ("get user name", ["get", "user", "name", "getusername", "GetUserNames"]),
    "user_service": ("user service", ["user", "user-service", "userService", "UserServices"]),
    "HTTPServer2": ("http server 2", ["http", "server", "2", "httpserver2"]),
    "v2.3.1": ("v2 3 1", ["v2", "2", "2.3.1", "V2.3.1"]),
    "src/app/main.py": ("src app main py", ["src", "main.py", "main", "py", "app/main.py"]),
    "https://www.example.org/docs/setup_guide.html?page=7#install": (
        "https www example org docs setup guide html page 7 install",
        ["example.org", "example", "docs", "setup_guide.html", "guide", "install", "page=7"],
    ),
    "jane.doe@example.com": (
        "jane doe example com",
        ["jane", "doe", "jane.doe", "example.com", "Jane.Doe@Example.com"],
    ),
    "CVE-2024-1234": ("cve 2024 1234", ["cve", "2024", "1234", "cve-2024-1234"]),
    "192.168.10.254": ("192 168 10 254", ["192.168", "254", "192.168.10.254"]),
    r"C:\Users\Anna\notes.txt": ("c users anna notes txt", ["users", "anna", "notes.txt", "notes"]),
    "std::vector": ("std vector", ["std", "vector"]),
    "__init__.py": ("init py", ["init", "__init__", "py"]),
    "--dry-run": ("dry run", ["dry", "run", "dry-run", "dryrun"]),
    "C++": ("c", ["c", "c++"]),
    "C#": ("c", ["c", "c#"]),
    ".NET": ("net", ["net", ".net"]),
    "Node.js": ("node js", ["node", "js", "node.js"]),
    "e-mail": ("e mail", ["email", "mail", "e-mails"]),
    "U.S.A.": ("u s a", ["usa", "U.S.A", "USA"]),
    "O'Brien": ("o brien", ["brien", "obrien", "o’brien"]),
    "黒猫が好き": ("き 好 が 猫 黒", ["猫", "黒猫", "好き"]),
    "สวัสดีครับ": ("ครับ สวัสดี", ["สวัสดี", "ครับ"]),
    "한국어를": ("를 어 국 한", ["한국어", "한국"]),
    "Python入門": ("python 門 入", ["python", "入門"]),
}


def index_of(texts: list[str]) -> BM25Index:
    index = BM25Index()
    for row, text in enumerate(texts):
        index.add(row, analyse(text))
    return index


@pytest.mark.parametrize(
    ("whole", "part"), [(whole, part) for whole, (_, parts) in WHOLES.items() for part in parts]
)
def test_a_part_finds_the_whole(whole: str, part: str) -> None:
    index = index_of(["unrelated filler words", f"see {whole}, then go on"])

    assert index.search(analyse_query(part), k=2)[0].tolist() == [1]


@pytest.mark.parametrize("whole", WHOLES)
def test_a_whole_ranks_best_for_itself(whole: str) -> None:
    scattered, _ = WHOLES[whole]
    others = [f"see {other}, then go on" for other in WHOLES if other != whole]
    index = index_of([*others, f"see {scattered}, then go on", f"see {whole}, then go on"])

    _, scores = index.search(analyse_query(whole), k=2)

    assert index.search(analyse_query(whole), k=1)[0].tolist() == [index.n_rows - 1]
    assert len(scores) == 1 or scores[0] > scores[1]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The dogs were running", "the dog were run"),
        ("Straße", "STRASSE"),
        ("café", "CAFE\u0301"),
        ("café", "cafe"),
        ("🚀 ﬁle ５", "🚀 file 5"),
        ("İstanbul", "istanbul"),
        ("co\u00adoperate", "cooperate"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("the user's name", "the users name"),
        ("don’t", "dont"),
        ("user_service", "UserService"),
        ("مُحَمَّد", "محمد"),
        ("إلى على", "الي علي"),
        ("٢٠٢٦ ۲۰۲۶ २०२६ ๒๐๒๖", "2026 2026 2026 2026"),
        ("đường Łódź smørrebrød", "duong Lodz smorrebrod"),
        ("Œuvre ÆTHER ısı", "oeuvre aether isi"),
        ("❤\ufe0f 👁\ufe0f\u200d🗨\ufe0f", "❤ 👁\u200d🗨"),
    ],
)
def test_spellings_of_one_word_have_the_same_terms(left: str, right: str) -> None:
    assert analyse(left) == analyse(right)


@pytest.mark.parametrize("word", ["thé", "Thé", "THÉ", "the\u0301", "ăn", "à", "só"])
def test_an_accented_word_is_no_function_word(word: str) -> None:
    index = index_of(["the cat and a dog so an owl", f"{word} vert", "something else"])

    assert index.search(analyse_query(word), k=3)[0].tolist() == [1]
    assert index.search(analyse_query(f"the {word}"), k=3)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("$1,299.99", ["1299", "1299.99"]),
        ("1.299,99 €", ["1299", "1299.99"]),
        ("1\u00a0299,99 €", ["1299"]),
        ("1\u202f299\u202f000", ["1299000"]),
        ("1'299.99", ["1299", "1299.99"]),
        ("10.000.000", ["10000000"]),
        ("₹12,34,567", ["1234567"]),
        ("١٬٢٩٩٫٩٩", ["1299", "1299.99"]),
        ("1,299-2,399", ["1299", "2399"]),
    ],
)
def test_a_grouped_number_is_found_by_its_digits(written: str, plain: list[str]) -> None:
    index = index_of(["12 99 299 unrelated", f"it cost {written} in all", "999"])

    found = [index.search(analyse_query(number), k=1)[0].tolist() for number in plain]

    assert found == [[1]] * len(plain)


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-05",
        "2026/03/05",
        "2026-03-05T10:00:00Z",
        "5 March 2026",
        "March 5th, 2026",
        "Mar. 5 2026",
        "2026 MARCH 5",
        "the 5th of March, 2026",
        "05.03.2026",
        "5-Mar-2026",
        "05/Mar/2026:10:00:00",
        "5. März 2026",
        "5 de marzo de 2026",
        "2026年3月5日",
    ],
)
def test_a_date_is_one_term_in_any_format(written: str) -> None:
    assert "20260305" in analyse(f"due on {written}, at noon")
    assert "20260305" in analyse_query(written)


@pytest.mark.parametrize("written", ["03/05/2026", "31 February 2026", "March 2026", "5 March"])
def test_what_is_not_certainly_a_day_is_no_date(written: str) -> None:
    assert not [term for term in analyse(written) if len(term) == 8 and term.isdecimal()]


@pytest.mark.parametrize(
    ("sequence", "others"),
    [
        ("👨\u200d👩\u200d👧", ["👨 👩 👧", "👨\u200d👩\u200d👦"]),
        ("👍🏽", ["👍 🏽", "👍🏿", "👍"]),
        ("🇩🇪", ["🇩🇰 🇪🇸", "🇪🇩"]),
        ("1\ufe0f\u20e3", ["1", "2\ufe0f\u20e3"]),
        ("#\ufe0f\u20e3", ["#", "*\ufe0f\u20e3"]),
    ],
)
def test_an_emoji_sequence_is_found_before_its_parts(sequence: str, others: list[str]) -> None:
    index = index_of([*others, f"done {sequence}", "unrelated"])

    assert index.search(analyse_query(sequence), k=1)[0].tolist() == [len(others)]


@pytest.mark.parametrize(
    ("run", "word"),
    [
        ("วันนี้ฉันมีแมวสี่ตัวที่บ้าน", "สี่"),
        ("ថ្ងៃនេះខ្ញុំទៅផ្សារទិញត្រី", "ផ្សារ"),
        ("今天下午三点开会讨论预算", "预算"),
        ("今日は東京でりんごを買った", "りんご"),
        ("오늘은한국어를공부했다", "한국어"),
        ("ယနေ့ကျွန်တော်စာအုပ်ဖတ်သည်", "စာအုပ်"),
    ],
)
def test_a_word_is_found_inside_a_run_without_spaces(run: str, word: str) -> None:
    others = [run.replace(word, ""), run[::2], run[::-1]]
    index = index_of([*others, run])

    assert index.search(analyse_query(word), k=1)[0].tolist() == [len(others)]


@pytest.mark.parametrize("other", ["C", "C#", "D++"])
def test_a_language_name_keeps_its_punctuation(other: str) -> None:
    index = index_of([f"written in {other}", "written in C++", "written in Go", "written in Rust"])

    assert index.search(analyse_query("C++"), k=1)[0].tolist() == [1]


def test_a_query_of_function_words_finds_what_holds_them() -> None:
    index = index_of(["The Who played in Leeds", "nothing like it", "cats and dogs"])

    assert index.search(analyse_query("the who"), k=3)[0].tolist() == [0]
    assert analyse_query("to be or not to be") == analyse("to be or not to be") != []


def test_function_words_do_not_outvote_the_others() -> None:
    assert analyse_query("what is the name of the dog") == ["name", "dog"]
    assert sorted(analyse("the dog and the cat and the owl")) == ["and", "cat", "dog", "owl", "the"]


@pytest.mark.parametrize(("query", "term"), [("IT department", "it"), ("vitamin A", "a")])
def test_a_function_word_in_capitals_is_a_word(query: str, term: str) -> None:
    assert term in analyse_query(query)


@pytest.mark.parametrize(
    "digest", ["9b2f4c6d8e0a1b3c5d7f9e1a2b4c6d8f" * 2, "aGVsbG8gd29ybGQK" * 400]
)
def test_a_hash_or_a_blob_is_one_term(digest: str) -> None:
    assert len(analyse(digest)) == 1


def test_compounds_lengthen_a_document_by_less_than_half() -> None:
    text = "The well-known getUserName in src/app/user_service.py calls https://example.org/v2.3.1."
    words = "the well known get user name in src app user service py calls https example org v2 3 1"

    assert len(analyse(text)) < 1.5 * len(words.split())


@given(st.text())
def test_any_text_has_terms_that_can_be_indexed(text: str) -> None:
    terms = analyse(text)

    assert all(0 < len(term) <= MAX_TERM_LENGTH and not term.isspace() for term in terms)
    assert set(analyse_query(text)) <= set(terms)
    assert bool(analyse_query(text)) == bool(terms)
    assert bool(terms) or not any("a" <= c <= "z" for c in text)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_composed_and_decomposed_text_have_the_same_terms(text: str) -> None:
    forms = {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")}

    assert analyse(forms["NFC"]) == analyse(forms["NFD"])


@pytest.mark.timeout(20)  # linear time takes a fraction of a second
@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ถั่วดี", ["ถั่", "ว", "ดี", "ถั่ว", "วดี"]),
        ("ភ្នំពេញ", ["ភ្នំ", "ពេ", "ញ", "ភ្នំពេ", "ពេញ"]),
        ("猫が好き", ["猫", "が", "好", "き", "猫が", "が好", "好き"]),
    ],
)
def test_a_character_of_an_unspaced_script_has_its_signs(text: str, terms: list[str]) -> None:
    assert analyse(text) == terms


@pytest.mark.parametrize(
    "unit",
    [
        *"aA_-#猫😀 ",
        "aB",
        "1.",
        "a./",
        "./",
        "a_",
        "c++",
        "a'",
        "'s",
        "a::",
        "é9Z.",
        "://",
        "\u0301\u0316",
        "a\u0e38\u0e48",
        "1,23,",
        "1,234",
        "1.234.",
        "9年1月",
        "1/Mar/",
        "March 5 ",
        "👍\u200d",
        "🇩",
        "1\u20e3",
    ],
)
def test_text_without_a_break_takes_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))

    terms = analyse("a" + text)

    assert sum(map(len, terms)) <= 4 * len(text)


def test_threads_agree_while_the_cache_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyser, "_MAX_CACHED_CHUNKS", 50)
    monkeypatch.setattr(analyser, "_chunk_terms", type(analyser._chunk_terms)())
    texts = [f"running_{n} services{n % 7} categories" for n in range(400)]
    expected = [analyse(text) for text in texts]

    with ThreadPoolExecutor(8) as pool:
        results = [list(pool.map(analyse, texts)) for _ in range(5)]

    assert all(result == expected for result in results)
    assert len(analyser._chunk_terms) <= 50 + 8


@pytest.mark.parametrize("written", ["+49 170 1234567", "(49) 170-1234567", "49 170 12 34 567"])
def test_a_number_in_groups_is_one_term_however_it_is_grouped(written: str) -> None:
    assert "491701234567" in analyse(f"Call {written}.")
    assert "491701234567" in analyse_query(f"whose number is {written}?")


def test_short_groups_and_long_tables_make_no_number_of_their_own() -> None:
    assert analyse("rooms 12 and 34") == analyse("rooms 12 34 and")
    row = " ".join(str(n) for n in range(1000, 1040))
    assert analyse(row) == row.split()


@pytest.mark.parametrize(
    "text",
    [
        "Which tickets of src/user_service.py?",
        "the who",
        "twenty-five or thirty five €",
        "東京 !",
        "",
    ],
)
def test_the_words_of_a_query_have_all_the_terms_that_are_searched_for(text: str) -> None:
    words = words_of_query(text)

    assert {term for terms in words.values() for term in terms} == set(analyse_query(text))
