"""Tokens: what goes in comes out, the damaged are refused, a misfit says from where on."""

from __future__ import annotations

import base64
import hashlib
import shutil
import string
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from exploring import failure
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import (
    Event,
    Failure,
    Mutex,
    ReplayDivergence,
    Shared,
    TokenError,
    explore,
    parallel,
    replay,
)
from harness.trace.token import (
    FILE_PREFIX,
    PREFIX,
    TOKEN_CHARS_MAX,
    TOKEN_FOLDER,
    Token,
    decode,
    encode,
    pack,
    unpack,
)

# -- packing ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3_000) | st.just(0), max_size=300))
def test_choices_survive_packing(taken: list[int]) -> None:
    assert {i: choice for i, choice in enumerate(taken) if choice} == unpack(pack(taken))


@given(st.binary(max_size=100))
def test_any_bytes_unpack_to_choices_or_are_refused(data: bytes) -> None:
    try:
        deviations = unpack(data)
    except TokenError:
        return
    taken = [0] * (max(deviations, default=-1) + 1) if max(deviations, default=0) < 10_000 else []
    for position, choice in deviations.items():
        if position < len(taken):
            taken[position] = choice
    assert all(choice >= 1 for choice in deviations.values())
    if taken and all(choice < 10**6 for choice in taken):
        assert deviations == unpack(pack(taken))


def test_a_sparse_schedule_takes_a_byte_for_a_deviation() -> None:
    taken = ([0] * 14 + [1]) * 20
    assert 20 == len(pack(taken))


tokens = st.builds(
    Token,
    program=st.text(max_size=30),
    strategy=st.sampled_from(["random", "pct", "dfs"]),
    seed=st.integers(0, 2**63),
    schedule=st.integers(1, 2**40),
    deviations=st.lists(st.integers(0, 9), max_size=60).map(pack),
    steps=st.integers(1, 10**6),
    stride=st.integers(1, 10**4),
    checkpoints=st.binary(max_size=32),
    kind=st.sampled_from(["deadlock", "assertion"]),
    fingerprint=st.text("0123456789abcdef", min_size=8, max_size=8),
    steps_max=st.integers(1, 10**6),
    early_timeouts=st.booleans(),
    meta=st.dictionaries(
        st.text(max_size=8), st.integers(-(2**31), 2**31) | st.text(max_size=8), max_size=4
    ),
    edges=st.lists(
        st.tuples(
            *[st.text(max_size=5)] * 2,
            *[st.sampled_from(["exclusive", "shared"])] * 2,
            st.text(max_size=5),
            st.integers(0, 99),
        ).map(list),
        max_size=3,
    ),
)


@settings(max_examples=60)
@given(tokens)
def test_a_token_survives_writing_and_reading(token: Token) -> None:
    text = encode(token)

    assert token == decode(text)
    assert len(text) <= TOKEN_CHARS_MAX
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@settings(max_examples=10)
@given(tokens, st.sampled_from([" ", "\n", "\t "]))
def test_blanks_around_a_token_do_no_harm(token: Token, blank: str) -> None:
    assert token == decode(blank + encode(token) + blank)


@settings(max_examples=60)
@given(tokens, st.integers(0, 10**6), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_a_token_with_one_wrong_character_is_refused(
    token: Token, position: int, character: str
) -> None:
    text = encode(token)
    position %= len(text)
    damaged = text[:position] + character + text[position + 1 :]
    if damaged == text:
        return
    with pytest.raises(TokenError):
        decode(damaged)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_wrong_last_character_is_refused_though_base64_would_not_notice(length: int) -> None:
    """The last character may carry bits that stand for nothing."""
    token = msgspec.structs.replace(decode(_found().token), program="p" * length)
    text = encode(token)

    for character in string.ascii_letters + string.digits + "-_":
        if character != text[-1]:
            with pytest.raises(TokenError):
                decode(text[:-1] + character)


@settings(max_examples=60)
@given(tokens, st.integers(1, 10**6))
def test_a_token_that_was_cut_short_is_refused(token: Token, length: int) -> None:
    text = encode(token)
    with pytest.raises(TokenError):
        decode(text[: length % len(text)])


@given(st.text(max_size=80))
def test_other_text_is_refused(text: str) -> None:
    for candidate in (text, PREFIX + text, FILE_PREFIX + text):
        with pytest.raises(TokenError) as caught:
            decode(candidate)
        assert "\n" not in str(caught.value)


def _sealed(body: bytes) -> str:
    """``body`` with a right checksum, as a token."""
    data = hashlib.sha256(body).digest()[:4] + body
    return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    "body",
    [
        b"\xc0",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode(["p", "random", "zero"]),
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode(["p", "s", 0, 1, b"", 5, 0, b"", "k", "f", 10, False, {}, []]),
        msgspec.msgpack.encode(["p", "s", 0, 1, b"", -5, 1, b"", "k", "f", 10, False, {}, []]),
        msgspec.msgpack.encode(["p", "s", 0, 1, b"", 5, 1, b"", "k", "f", 0, False, {}, []]),
        b"\x91" * 5_000,
    ],
    ids=["nil", "empty", "short", "map", "stride 0", "negative steps", "no bound", "nested"],
)
def test_a_sealed_token_of_other_content_is_refused(body: bytes) -> None:
    with pytest.raises(TokenError):
        decode(_sealed(body))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"edges": [["A"]]},
        {"edges": [["A", "B", "exclusive", "exclusive", "t", "not a number"]]},
        {"edges": [["A", "B", "exclusive", "SHARED", "t", 1]]},
        {"edges": [["A", "B", "", "exclusive", "t", 1]]},
        {"deviations": b"\x80"},
    ],
    ids=str,
)
def test_a_sealed_token_of_impossible_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(TokenError, match="copy it again, whole"):
        replay(_loses_an_update, _changed(change))


@pytest.mark.parametrize(
    "change", [{"strategy": "no such strategy"}, {"schedule": -1}, {"kind": "weather"}], ids=str
)
def test_what_a_sealed_token_only_tells_is_not_needed_to_replay_it(
    change: dict[str, object],
) -> None:
    """Its choices decide, and they are all there."""
    again = replay(_loses_an_update, _changed(change))

    assert again is not None
    assert again.kind == "assertion"


def _changed(change: dict[str, object]) -> str:
    """A token that somebody has made on purpose: the sum is right, a value is not."""
    token = msgspec.structs.replace(decode(failure(_loses_an_update).token), **change)
    return _sealed(msgspec.msgpack.encode(token))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a token"),
        ("hello", "tokens begin with ll1-"),
        ("ll2-abcdef", "another version"),
        ("ll1-", "damaged or cut short"),
        ("ll1-AAAA", "damaged or cut short"),
        ("ll1-ä", "damaged or cut short"),
        ("ll1f-" + "0" * 32, "cannot be read"),
        ("ll1f-../../etc/passwd", "damaged"),
        ("ll1-" + "A" * 10_000, "at most"),
    ],
)
def test_a_refusal_says_what_is_wrong_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(TokenError, match=complaint) as caught:
        replay(lambda: None, text)

    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200


# -- programs that change -----------------------------------------------------------------------


def _loses_an_update() -> None:
    counter = Shared(0, "counter")

    def increment() -> None:
        counter.set(counter.get() + 1)

    parallel(increment, increment, names=["one", "two"])
    assert counter.peek() == 2, "an update was lost"


def _edited(*, locked: bool = False, repaired: bool = False, longer: int = 0) -> Callable[[], None]:
    """The same program, edited here and there."""

    def program() -> None:
        counter, lock = Shared(0, "counter"), Mutex("m")

        def increment() -> None:
            if locked:
                lock.acquire()
            seen = counter.get()
            counter.set(seen + 1)
            if locked:
                lock.release()

        parallel(increment, increment, names=["one", "two"])
        for _ in range(longer):
            counter.get()
        assert repaired or counter.peek() == 2, "an update was lost"

    return program


def _found() -> Failure:
    return failure(_loses_an_update)


def test_a_token_replays_in_a_program_whose_code_merely_moved() -> None:
    found = _found()
    again = replay(_edited(), found.token)

    assert again is not None
    assert (found.kind, found.steps, found.preemptions) == (
        again.kind,
        again.steps,
        again.preemptions,
    )
    assert [(s.name, s.kind, s.obj) for s in found.trace()] == [
        (s.name, s.kind, s.obj) for s in again.trace()
    ]


def test_a_token_of_a_repaired_program_replays_to_nothing() -> None:
    assert replay(_edited(repaired=True), _found().token) is None


def test_a_token_ends_before_the_steps_that_were_added() -> None:
    """The schedule fits as far as it goes; then the default runs the program to its end."""
    assert replay(_edited(longer=2, repaired=True), _found().token) is None

    again = replay(_edited(longer=2), _found().token)
    assert again is not None
    assert _found().steps + 2 == again.steps


def test_a_lock_that_was_added_diverges_at_the_first_step_that_differs() -> None:
    """parallel, then get by one: now an acquire."""
    with pytest.raises(ReplayDivergence) as caught:
        replay(_edited(locked=True), _found().token)

    assert 2 == caught.value.step
    assert "acquire m" in str(caught.value)
    assert "from step 2 on" in str(caught.value)
    assert "the program has changed since the token was made" in str(caught.value)


def test_a_long_schedule_says_which_stretch_differs_not_that_its_first_step_does() -> None:
    """A token has few marks: here one for several steps, of which the last is another one."""
    last = "set"

    def program() -> None:
        cell = Shared(0, "cell")

        def many() -> None:
            for _ in range(97):
                cell.get()
            cell.set(1) if last == "set" else cell.get()

        parallel(many, lambda: None, names=["many", "none"])
        assert last != "set"

    found = explore(program, "dfs", schedules=1).failure
    assert found is not None
    assert found.steps == 99
    last = "get"

    with pytest.raises(ReplayDivergence) as caught:
        replay(program, found.token)

    assert caught.value.step <= 99
    assert f"steps {caught.value.step} to 99, not all of which are the same" in str(caught.value)
    assert f"in step {caught.value.step} many (get cell" in str(caught.value)


def test_a_program_that_ends_too_early_diverges_at_its_end() -> None:
    def program() -> None:
        counter = Shared(0, "counter")
        parallel(counter.get, counter.get, names=["one", "two"])

    with pytest.raises(ReplayDivergence) as caught:
        replay(program, _found().token)

    # parallel and two gets fit; what would have been a set is the end.
    assert 4 == caught.value.step


def test_the_first_difference_is_named_though_a_later_choice_is_impossible() -> None:
    def before() -> None:
        cell, other = Shared(0, "cell"), Shared(0, "other")

        def last() -> None:
            other.get()
            assert cell.get() == 3, "too early"

        parallel(lambda: cell.set(1), lambda: cell.set(2), last, names=["a", "b", "last"])

    def after() -> None:
        other = Shared(0, "else")

        def last() -> None:
            other.get()

        parallel(last, names=["last"])

    report = explore(before, "random", schedules=200, seed=1, stop_at_first=False)
    for found in report.failures:
        with pytest.raises(ReplayDivergence) as caught:
            replay(after, found.token)
        assert caught.value.step <= 2


@pytest.mark.parametrize("length", [10, 100, 1_000])
def test_a_long_schedule_is_compared_all_along(length: int) -> None:
    """One byte for each of 32 stretches: the stretch that differs is named by its first step."""

    def program(odd: int | None) -> None:
        cell, other = Shared(0, "cell"), Shared(0, "other")

        def work() -> None:
            for i in range(length):
                (other if i == odd else cell).get()

        parallel(work, names=["worker"])
        raise LookupError("end")

    found = failure(lambda: program(None), "random")
    stride = -(-found.steps // 32)
    odd = length // 2
    with pytest.raises(ReplayDivergence) as caught:
        replay(lambda: program(odd), found.token)

    # Step 1 is the parallel; the odd access is step odd + 2.
    assert caught.value.step <= odd + 2 < caught.value.step + stride


def test_a_token_replays_though_other_objects_and_threads_are_made_beside() -> None:
    def program() -> None:
        Mutex("unused")
        Event("unused too")
        _loses_an_update()

    found = _found()
    again = replay(program, found.token)
    assert again is not None
    assert found.digest == again.digest


def test_a_token_that_now_fails_otherwise_gives_the_other_failure() -> None:
    def program() -> None:
        counter = Shared(0, "counter")

        def increment() -> None:
            counter.set(counter.get() + 1)

        parallel(increment, increment, names=["one", "two"])
        raise KeyError("something else")

    again = replay(program, _found().token)
    assert again is not None
    assert "exception" == again.kind
    assert "KeyError" in again.message


# -- long tokens --------------------------------------------------------------------------------


def _long() -> None:
    cell = Shared(0, "cell")

    def work() -> None:
        for _ in range(1_500):
            cell.get()

    parallel(work, work, work)
    raise LookupError("at the end of a long road")


def test_a_long_schedule_goes_to_a_file_that_its_token_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = failure(_long, "random", seed=1)

    assert found.token.startswith(FILE_PREFIX)
    assert len(found.token) < 64
    path = tmp_path / TOKEN_FOLDER / f"{found.token.removeprefix(FILE_PREFIX)}.ll1"
    assert path.stat().st_size > TOKEN_CHARS_MAX
    again = replay(_long, found.token)
    assert again is not None
    assert (found.digest, found.token) == (again.digest, again.token)


def test_a_token_file_that_is_missing_or_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    token = failure(_long, "random", seed=1).token
    (path,) = (tmp_path / TOKEN_FOLDER).iterdir()
    body = path.read_bytes()

    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(TokenError, match="does not match its checksum"):
        replay(_long, token)
    path.unlink()
    with pytest.raises(TokenError, match="cannot be read"):
        replay(_long, token)


def test_a_short_token_has_at_most_two_kilobytes() -> None:
    assert len(_found().token) < 200
    assert TOKEN_CHARS_MAX == 2_048


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_a_token_passes_a_shell_unquoted() -> None:
    token = _found().token
    printed = subprocess.run(
        ["sh", "-c", f"echo {token}"], capture_output=True, text=True, check=True
    )
    assert token == printed.stdout.strip()
