import numpy as np
import pytest

from stages.evidence import decompose, decompose_arrays
from stages.records import OUTPUTS, FrameMap


def frame_map(z_t: float, lse_n: float, sd: float = 0.1) -> FrameMap:
    mean = np.array([z_t, lse_n, z_t - lse_n], np.float32).reshape(3, 1, 1)
    return FrameMap(
        video_id="v",
        target_idx=0,
        frame_idx=0,
        outputs=OUTPUTS,
        mean=mean,
        var=np.full_like(mean, sd**2),
        is_seen=True,
        is_reliable=True,
    )


@pytest.mark.parametrize(
    ("z_t", "lse_n", "support", "f_tc", "f_ntc"),
    [(2, 0, 2, 0, 0), (-2, 0, 0, 2, 0), (0, 2, 0, 0, 2), (1, 3, 1, 0, 3), (0, -3, 0, 0, 0)],
)
def test_each_kind_of_evidence_lands_in_its_own_map(z_t, lse_n, support, f_tc, f_ntc):
    totals = decompose(frame_map(z_t, lse_n)).totals()
    assert totals == {"support": support, "f_tc": f_tc, "f_ntc": f_ntc, "net": z_t - lse_n}


def test_significance_needs_two_standard_deviations_on_the_side_of_the_map():
    clear = decompose(frame_map(-0.3, 0.3)).is_significant
    assert not clear["support"].any()
    assert clear["f_tc"].all()
    assert clear["f_ntc"].all()
    assert clear["net"].all()
    unsure = decompose(frame_map(-0.15, 0.15)).is_significant
    assert not unsure["f_tc"].any()
    assert not unsure["f_ntc"].any()


def test_the_order_of_outputs_does_not_matter_and_rivals_are_ignored():
    outputs = ("rival:7", "log_odds", "lse_n", "z_t")
    mean = np.array([9, 1, 2, 3], np.float32).reshape(4, 1, 1, 1)
    maps = decompose_arrays(outputs, mean, np.zeros_like(mean))
    assert maps.totals() == {"support": 3, "f_tc": 0, "f_ntc": 2, "net": 1}


def test_missing_outputs_are_a_bug_and_named():
    with pytest.raises(ValueError, match="lse_n"):
        decompose_arrays(("z_t", "log_odds"), np.zeros((2, 1, 1), np.float32), np.zeros((2, 1, 1), np.float32))
