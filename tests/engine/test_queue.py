from dia_server.engine.generation import Generation
from dia_server.engine.queue import FairQueue
from dia_server.engine.types import Flow, Utterance


def waiting(text: str, flow: Flow) -> Generation:
    return Generation(Utterance(text, "aria", seed=0, flow=flow), lambda _: None)


def queue(*generations: Generation) -> FairQueue:
    filled = FairQueue()
    for generation in generations:
        filled.push(generation)
    return filled


def order(queue: FairQueue, running: list[Generation] | None = None) -> str:
    """Pop all texts in order; with `running`, each popped generation then holds a slot."""
    texts = ""
    while generation := queue.pop(running or ()):
        texts += generation.utterance.text
        if running is not None:
            running.append(generation)
    return texts


def test_clients_take_turns_however_many_requests_one_has() -> None:
    crowd = [waiting(text, Flow("crowd")) for text in "abcd"]

    assert order(queue(*crowd, waiting("X", Flow("other")))) == "aXbcd"


def test_requests_of_a_client_take_turns_however_long_one_is() -> None:
    long, short = Flow("one"), Flow("one")

    assert order(queue(*(waiting(text, long) for text in "abcd"), waiting("X", short))) == "aXbcd"


def test_utterances_of_a_request_stay_in_order() -> None:
    flow = Flow("one")

    assert order(queue(*(waiting(text, flow) for text in "abcd"))) == "abcd"


def test_a_slot_goes_to_the_client_that_holds_fewest() -> None:
    crowd, other = Flow("crowd"), Flow("other")
    running = [waiting("", crowd) for _ in range(3)]

    fair = queue(*(waiting(text, crowd) for text in "abc"), *(waiting(text, other) for text in "XYZW"))

    assert order(fair, running) == "XYZaWbc"


def test_a_slot_goes_to_the_request_of_a_client_that_holds_fewest() -> None:
    long, short = Flow("one"), Flow("one")
    running = [waiting("", long) for _ in range(2)]

    fair = queue(*(waiting(text, long) for text in "abc"), *(waiting(text, short) for text in "XYZ"))

    assert order(fair, running) == "XYaZbc"


def test_a_slot_kept_for_newcomers_goes_to_no_other() -> None:
    crowd, other = Flow("crowd"), Flow("other")
    running = [waiting("", crowd)]
    fair = queue(waiting("a", crowd))

    assert fair.pop(running, newcomers_only=True) is None
    fair.push(newcomer := waiting("X", other))
    assert fair.pop(running, newcomers_only=True) is newcomer
    assert len(fair) == 1


def test_a_discarded_utterance_is_never_popped() -> None:
    flow = Flow("one")
    first, second = waiting("a", flow), waiting("b", flow)
    fair = queue(first, second)

    fair.discard(first)
    fair.discard(first)

    assert list(fair) == [second]
    assert (len(fair), fair.waiting_of("one"), fair.waiting_of("other")) == (1, 1, 0)
    fair.discard(second)
    assert fair.pop(()) is None


def test_a_cleared_queue_is_empty() -> None:
    fair = queue(waiting("a", Flow("one")))
    fair.clear()

    assert (list(fair), len(fair), fair.pop(())) == ([], 0, None)


def test_a_long_text_is_not_starved_by_endless_short_ones() -> None:
    long = Flow("one")
    fair = queue(*(waiting("L", long) for _ in range(5)))
    turns = ""
    for _ in range(40):
        while fair.waiting_of("one") - 5 + turns.count("L") < 3:
            fair.push(waiting("s", Flow("one")))
        generation = fair.pop([])
        assert generation is not None
        turns += generation.utterance.text

    assert turns.count("L") == 5
