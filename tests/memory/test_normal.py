"""One normal form for goals, rooms and identities: what reads alike is the same, hashes stay."""

import sys
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relive.envs import get_suite
from relive.memory import normal
from relive.memory.normal import normal_goal, normal_text

GOAL = "put hot mug in cabinet 3"
HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs", "Cc", "Cf", "Mn", "Me", "Nd", "Zs", "Sk", "Lm"]),
        st.sampled_from(
            "aA _-.\t\n\u00a0\u0130\u0345\u0390\u1fb3\u3164\uac01\ufb03\u2126\u1e9e\u03a3"
        ),
    )
)


@pytest.mark.parametrize(
    "spelling",
    [
        "put a hot mug in the cabinet 3",
        "Put AN hot   Mug in\tcabinet\u00a03\n",
        "put_hot_mug in cabinet 3.",
        "put hot-mug, in cabinet: 3!",
        "\u200bput ho\u00adt m\u200du\ufeffg in cab\u2060inet 3",
        "put hot mug\u180e in\u202e cabinet\u2069 3\ufe0f",
        "put\u034f hot\u115f mug\u1160 in\u17b4 cab\U000e0061inet \uffa03",
        "put\u2800hot\u3000mug\u2028in\u1680cabinet\u20033",
        "pu\u0301t hót mu\u0308g in cábínet 3\u20dd",
        "рut hоt mug in сabinеt 3",
        "ΡUТ ΗΟΤ ΜUԌ ΙN СΑВΙNΕТ З",
        "𝓹𝓾𝓽 𝔥𝔬𝔱 𝚖𝚞𝚐 ⓘⓝ ｃａｂｉｎｅｔ ３",
        "put hot mug in cabinet ٣",
        "put hot ᴍᴜɢ in ᴄaʙɪneᴛ ③",
        "put\x00 hot\x1b mug\x7f in cabinet\x85 3",
        "put hot mug in cabınet 3",
        "put hoŧ mug in ꓚabinet 3",
    ],
)
def test_a_goal_is_the_same_however_it_is_spelt(spelling: str) -> None:
    assert normal_goal(spelling) == GOAL


@pytest.mark.parametrize(
    "other",
    [
        "put cold mug in cabinet 3",
        "put hot mug in cabinet 4",
        "put hot mug in cabinet",
        "put hot mugs in cabinet 3",
        "in cabinet 3 put hot mug",
        "puthot mug in cabinet 3",
        "put h0t mug in cabinet 3",
        "put hot rnug in cabinet 3",
    ],
)
def test_other_goals_stay_other_goals(other: str) -> None:
    assert normal_goal(other) != GOAL


@pytest.mark.parametrize(
    "spelling",
    [
        "kitchen-1",
        "KITCHEN-1",
        " kitchen-1  ",
        "ｋｉｔｃｈｅｎ－１",
        "\u200bkitchen\u00ad-1",
        "kitchen\u20101",
        "kitсhen-1",
        "kítchen-1",
    ],
)
def test_a_room_is_the_same_however_it_is_spelt(spelling: str) -> None:
    assert normal_text(spelling) == "kitchen-1"


def test_rooms_keep_what_goals_do_not() -> None:
    assert normal_text("The Room_a-1") == "the room_a-1"
    rooms = ("room 1", "room_1", "room-1", "room1", "a room 1")
    assert len({normal_text(room) for room in rooms}) == len(rooms)


def test_an_identity_that_cannot_be_told_apart_is_no_other_identity() -> None:
    assert normal_text("TASK ") == normal_text("task") == "task"


@pytest.mark.parametrize(
    "nothing",
    ["", " \t\n", "\u200b", "\u00ad\ufeff", "\u2800\u3164\u115f", "\u202e\u2066", "\x00\x1b"],
)
def test_what_cannot_be_seen_is_nothing(nothing: str) -> None:
    assert normal_text(nothing) == ""
    assert normal_goal(nothing) == ""


def test_a_goal_without_words_is_not_every_goal_without_words() -> None:
    assert normal_goal("→  🍎") == "→ 🍎"
    assert normal_goal("→ 🍌") != normal_goal("→ 🍎")
    assert normal_goal("The") == "the"
    assert normal_goal("!!") == "!!"
    assert normal_goal("put 🍎 away!") == "put away"


@pytest.mark.parametrize("text", ["task 0b1l", "rn", "æon", "ᴀ", "mип"])
def test_what_is_let_through(text: str) -> None:
    """ASCII look-alikes, letters that look like two, what Unicode does not list."""
    assert normal_text(text) == text


def test_capital_nu_folds_like_the_small_one() -> None:
    assert normal_text("Ν") == normal_text("ν") == "v"


def test_identities_of_a_suite_stay_as_they_are() -> None:
    identities = [task.identity for task in get_suite("household").tasks("train", 50)]
    assert len(identities) == 50
    for identity in identities:
        assert identity
        assert normal_text(identity) == identity


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz-_:/.", min_size=1))
def test_plain_identities_stay_as_they_are(identity: str) -> None:
    assert normal_text(identity) == identity


@given(HOSTILE)
@example("\ud800 lone \udfff surrogates")
@example("\u0130I\u0307")
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normal_text(normal_text(text)) == normal_text(text)
    assert normal_goal(normal_goal(text)) == normal_goal(text)
    assert normal_goal(normal_text(text)) == normal_goal(text)


@given(HOSTILE)
def test_how_a_character_is_composed_does_not_count(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normal_text(unicodedata.normalize(form, text)) == normal_text(text)


@pytest.mark.parametrize("word", ["straße", "ΣΊΣΥΦΟΣ", "İstanbul", "вода", "ǆ", "ꭰꮎ"])
def test_case_does_not_count(word: str) -> None:
    for same in (word.upper(), word.lower(), word.casefold()):
        assert normal_text(same) == normal_text(word)


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_is_no_other_way(text: str) -> None:
    slow = text.translate({code: normal.character_form(chr(code)) for code in range(128)})
    assert normal_text(text) == " ".join(slow.split())
    assert normal_goal(text) == normal_goal(slow)


def test_every_character_has_a_form_of_its_own() -> None:
    forms = {code: normal.character_form(chr(code)) for code in range(0, sys.maxunicode + 1, 7)}
    assert [
        code for code, form in forms.items() if any(normal.character_form(c) != c for c in form)
    ] == []


def test_the_table_has_only_what_is_looked_up() -> None:
    table = normal.look_alikes()
    assert len(table) > 400
    for character, look in table.items():
        assert normal_text(character) == look
        assert (len(look), look.isascii(), look) == (1, True, look.lower())
        assert look.isalnum() != unicodedata.category(character).startswith("P")


def test_the_characters_at_hand_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal, "MOST", 10)
    forms = normal.Forms()
    for code in range(0x400, 0x460):
        assert forms[code] == normal.character_form(chr(code))
        assert len(forms) <= 10


def test_the_table_is_shipped() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "confusables.txt" in project["tool"]["setuptools"]["package-data"]["relive.memory"]
