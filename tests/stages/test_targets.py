"""Words, names and indices of classes."""

import numpy as np
import pytest

from stages.box import BoxSpec
from stages.errors import ConfigError
from stages.targets import mean_probabilities, needs_scores, resolve_targets

SPEC = BoxSpec(name="m", height=8, width=8, labels=("goldfish, Carassius auratus", "tiger cat", "tiger shark, tiger"))
PROBS = np.array([0.2, 0.5, 0.3], np.float32)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("top1", (1,)),
        ("second", (2,)),
        ("top3", (1, 2, 0)),
        ("Tiger Cat", (1,)),
        ("carassius auratus", (0,)),
        ("goldfish, Carassius auratus", (0,)),
        ("2,top1,tiger cat", (2, 1)),
        ("tiger", (2,)),
    ],
)
def test_targets_are_found(target, expected):
    assert resolve_targets(target, PROBS, SPEC) == expected


@pytest.mark.parametrize(("target", "hint"), [("tigr cat", "tiger cat"), ("7", "3 classes"), ("zzz", "did you mean")])
def test_unknown_targets_name_the_nearest(target, hint):
    with pytest.raises(ConfigError, match=hint):
        resolve_targets(target, PROBS, SPEC)


def test_only_ranked_words_need_the_box():
    assert needs_scores("tiger cat,top1")
    assert not needs_scores("tiger cat,1")


def test_mean_probabilities_averages_after_the_softmax():
    scores = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    np.testing.assert_allclose(mean_probabilities(scores), [0.55, 0.45], rtol=1e-6)
