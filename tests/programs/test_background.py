from service.programs.admission import Admission
from service.programs.background import Background


def made() -> Background:
    admission = Admission(1, 1, on_shed=lambda reason: None)
    return Background(admission, max_programs=1)


def test_of_two_equal_batches_each_ends_for_itself() -> None:
    """A client that tries a batch again sends the same lines."""
    background = made()
    with background.queue(["a", "b"]) as first:
        with background.queue(["a", "b"]) as second:
            assert background.waiting == 4
            second.popleft()
            second.appendleft("a")
        assert background.waiting == 2
        first.popleft()
        assert background.waiting == 1, "the queue that is left is the first"
    assert background.waiting == 0


def test_the_earlier_of_two_equal_batches_may_end_first() -> None:
    background = made()
    first, second = background.queue(["a"]), background.queue(["a"])
    first.__enter__()
    lines = second.__enter__()
    first.__exit__(None, None, None)
    lines.popleft()
    assert background.waiting == 0
    second.__exit__(None, None, None)
