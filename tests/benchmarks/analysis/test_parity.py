"""The same answers are told from others: by tokens, by angles, by labels."""

import pytest

from benchmarks.analysis.measurement import Answer
from benchmarks.analysis.parity import Parity, compare
from configs.bench import Validity

LIMITS = Validity()


def parity(theirs: Answer, ours: Answer) -> Parity:
    found = compare([theirs], [ours], LIMITS)
    assert found is not None
    return found


def test_nothing_to_compare_is_none() -> None:
    assert compare([], [], LIMITS) is None


def test_answers_are_compared_one_by_one() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        compare([Answer(), Answer()], [Answer()], LIMITS)


def test_equal_tokens_hold() -> None:
    answers = [Answer(token_ids=[1, 2, 3], logprobs=[-0.5, -0.25, -1]), Answer(token_ids=[4], logprobs=[-2.0])]
    found = compare(answers, answers, LIMITS)
    assert found == Parity(2, exact_share=1.0, logprob_distance=0.0)
    assert found is not None
    assert found.holds


@pytest.mark.parametrize(
    ("ours", "position"),
    [([9, 2, 3], 0), ([1, 2, 9], 2), ([1, 2], 2), ([1, 2, 3, 4], 3), ([], 0)],
)
def test_other_tokens_do_not_hold_and_the_first_that_differs_is_named(ours: list[int], position: int) -> None:
    found = parity(Answer(token_ids=[1, 2, 3]), Answer(token_ids=ours))
    assert (found.exact_share, found.first_divergence, found.holds) == (0, position, False)


def test_the_share_and_the_earliest_difference_are_those_of_all_prompts() -> None:
    theirs = [Answer(token_ids=[1, 2, 3])] * 4
    ours = [Answer(token_ids=ids) for ids in ([1, 2, 3], [1, 2, 9], [1, 9, 3], [1, 2, 3])]
    problem = "50% of its answers are those of the baseline"
    assert compare(theirs, ours, LIMITS) == Parity(4, exact_share=0.5, first_divergence=1, holds=False, problem=problem)


def test_log_probabilities_count_up_to_the_first_difference_only() -> None:
    theirs = Answer(token_ids=[1, 2, 3], logprobs=[-0.5, -1.0, -0.25])
    assert parity(theirs, Answer(token_ids=[1, 2, 3], logprobs=[-0.75, -1.0, -0.75])).logprob_distance == pytest.approx(
        0.25
    )
    assert parity(theirs, Answer(token_ids=[1, 9, 3], logprobs=[-0.6, -9, -9])).logprob_distance == pytest.approx(0.1)
    assert parity(theirs, Answer(token_ids=[9, 2, 3], logprobs=[-9.0, -1, -1])).logprob_distance is None
    assert parity(theirs, Answer(token_ids=[1, 2, 3])).logprob_distance is None


def test_vectors_are_compared_by_their_angle() -> None:
    theirs = Answer(vectors=[[1.0, 0.0], [3.0, 4.0]])
    assert parity(theirs, Answer(vectors=[[2.0, 0.0], [0.6, 0.8]])).holds  # only the length differs
    close = parity(theirs, Answer(vectors=[[1.0, 0.01], [3.0, 4.0]]))
    assert close.holds
    assert close.least_cosine == pytest.approx(1 / 1.0001**0.5)
    far = parity(theirs, Answer(vectors=[[1.0, 0.0], [4.0, 3.0]]))
    assert (far.holds, far.exact_share) == (False, 0)
    assert far.least_cosine == pytest.approx(0.96)


@pytest.mark.parametrize("vectors", [[[1.0, 0.0]], [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]], ids=["fewer", "longer"])
def test_vectors_of_another_shape_are_other_answers(vectors: list[list[float]]) -> None:
    assert not parity(Answer(vectors=[[1.0, 0.0], [0.6, 0.8]]), Answer(vectors=vectors)).holds


def test_a_vector_of_zeros_is_another_answer() -> None:
    found = parity(Answer(vectors=[[1.0, 0.0]]), Answer(vectors=[[0.0, 0.0]]))
    assert not found.holds


def test_labels_are_compared_with_their_order() -> None:
    theirs = Answer(labels=["cat", "dog"])
    assert parity(theirs, Answer(labels=["cat", "dog"])) == Parity(1, exact_share=1.0)
    assert not parity(theirs, Answer(labels=["dog", "cat"])).holds


def test_answers_of_different_kinds_or_of_none_do_not_hold() -> None:
    assert not parity(Answer(token_ids=[1]), Answer(labels=["1"])).holds
    assert not parity(Answer(vectors=[[1.0]]), Answer()).holds
    assert not parity(Answer(), Answer()).holds


@pytest.mark.parametrize(
    ("theirs", "ours", "problem"),
    [
        (
            Answer(token_ids=[1, 2], logprobs=[-0.5, -0.25]),
            Answer(token_ids=[1, 2], logprobs=[-0.513, -0.263]),
            "log-probabilities differ by 0.013 (bench.validity.max_logprob_distance: 0.005)",
        ),
        (
            Answer(labels=["cat", "dog"], scores=[0.8, 0.1]),
            Answer(labels=["cat", "dog"], scores=[0.6, 0.2]),
            "scores differ by 0.2 (bench.validity.max_score_distance: 0.001)",
        ),
    ],
)
def test_the_same_tokens_or_labels_by_other_weights_do_not_hold(theirs: Answer, ours: Answer, problem: str) -> None:
    assert parity(theirs, theirs).holds
    found = parity(theirs, ours)
    assert (found.exact_share, found.holds) == (1, False)
    assert problem in found.problem
    assert compare([theirs], [ours], Validity(max_logprob_distance=0.1, max_score_distance=0.5)).holds  # type: ignore[union-attr]
