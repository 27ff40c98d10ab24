"""When names are asked for, and what of the answers is news: values only, no clock."""

import random

from meshlib.model.dns import Dns, RefreshRate
from meshlib.resolve.names import Answer, Names, Question

ONE = Question("one", Dns())
RNG = random.Random(1)


def test_a_new_name_is_due_at_once_and_then_after_the_refresh_rate() -> None:
    names = Names()
    names.follow([ONE], 10.0)
    assert names.take_due(10.0, 9) == [ONE]
    assert names.take_due(99.0, 9) == []
    assert names.next_due is None
    assert names.awaited == ("one",)
    assert names.answered(ONE, Answer(("10.0.0.1",)), 11.0, RNG)
    assert names.next_due == 16.0
    assert names.awaited == ()
    assert names.take_due(15.9, 9) == []
    assert names.take_due(16.0, 9) == [ONE]
    assert not names.answered(ONE, Answer(("10.0.0.1",)), 16.0, RNG)  # nothing new
    assert names.answered(ONE, Answer(()), 17.0, RNG)
    assert names.addresses(ONE) == ()


def test_failures_keep_what_is_known_and_only_a_first_one_is_news() -> None:
    names = Names()
    names.follow([ONE], 0.0)
    assert names.failed(ONE, "no server", 0.0, RNG)
    assert names.addresses(ONE) is None
    assert not names.is_awaited(ONE)
    assert names.answered(ONE, Answer(("10.0.0.1",)), 1.0, RNG)
    assert not names.failed(ONE, "no server", 2.0, RNG)
    assert names.addresses(ONE) == ("10.0.0.1",)
    assert names.errors() == {"one": "no server"}
    assert names.next_due == 7.0  # Envoy: without a failure rate of its own, the refresh rate
    assert not names.answered(ONE, Answer(("10.0.0.1",)), 8.0, RNG)
    assert names.errors() == {}


def test_failures_back_off_with_jitter_between_nothing_and_the_most() -> None:
    question = Question("one", Dns(failure_refresh_rate=RefreshRate(1.0, 8.0)))
    for seed in range(200):
        rng, names = random.Random(seed), Names()
        names.follow([question], 0.0)
        waits = []
        for _ in range(8):
            names.failed(question, "", 0.0, rng)
            assert names.next_due is not None
            waits.append(names.next_due)
        assert all(0 < wait <= most for wait, most in zip(waits, (1, 4, 8, 8, 8, 8, 8, 8), strict=True))
    names.answered(question, Answer(()), 0.0, rng)
    names.failed(question, "", 0.0, rng)
    assert names.next_due is not None
    assert names.next_due <= 1.0


def test_jitter_and_times_to_live() -> None:
    for seed in range(50):
        rng, names = random.Random(seed), Names()
        jittered, lived = Question("j", Dns(jitter=2.0)), Question("t", Dns(respect_ttl=True))
        names.follow([jittered], 0.0)
        names.answered(jittered, Answer(("10.0.0.1",), 30.0), 0.0, rng)
        assert names.next_due is not None
        assert 5.0 <= names.next_due < 7.0
        names.follow([lived], 0.0)
        names.answered(lived, Answer(("10.0.0.1",), 30.0), 0.0, rng)
        assert names.next_due == 30.0
        names.answered(lived, Answer(("10.0.0.1",), 0.0), 0.0, rng)
        assert names.next_due == 1.0
        names.answered(lived, Answer((), None), 0.0, rng)
        assert names.next_due == 5.0


def test_names_that_no_cluster_has_are_forgotten_and_shared_ones_are_asked_for_once() -> None:
    names = Names()
    other = Question("other", Dns())
    names.follow([ONE, other, ONE], 0.0)
    assert names.take_due(0.0, 9) == [ONE, other]
    names.answered(ONE, Answer(("10.0.0.1",)), 0.0, RNG)
    names.follow([ONE], 0.0)
    assert not names.answered(other, Answer(("10.0.0.2",)), 0.0, RNG)  # comes too late
    assert names.addresses(other) is None
    assert names.addresses(ONE) == ("10.0.0.1",)
    names.restart(3.0)  # a forked child
    assert names.take_due(3.0, 9) == [ONE]
    assert names.addresses(ONE) == ("10.0.0.1",)


def test_no_more_are_taken_than_there_are_threads() -> None:
    names = Names()
    many = [Question(str(number), Dns()) for number in range(30)]
    names.follow(many, 0.0)
    assert names.take_due(0.0, 16) == many[:16]
    assert names.take_due(0.0, 16) == many[16:]
