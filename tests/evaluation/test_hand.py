import numpy as np
import pytest

from mogacore.datasets.hands import pose_hand
from mogacore.errors import UserError
from mogacore.evaluation.hand import HandJointMetric, align, mpjpe, pa_mpjpe, pixel_to_camera

SHIFT = (3, 0, 4)
FOCAL, CENTER = np.array([300.0, 310.0]), np.array([60.0, 70.0])


@pytest.fixture
def hands():
    rng = np.random.default_rng(0)
    return np.stack([pose_hand(rng)[0] + [10, -20, 500] for _ in range(8)])


def similar(rng, hands):
    """Each hand after a random rotation, scaling and translation."""
    rotations = np.linalg.qr(rng.normal(size=(len(hands), 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[:, None, None]
    return rng.uniform(0.5, 2, (len(hands), 1, 1)) * hands @ rotations + rng.normal(0, 100, (len(hands), 1, 3))


def test_mpjpe_matches_cases_worked_by_hand(hands):
    assert not mpjpe(hands, hands).any()
    np.testing.assert_allclose(mpjpe(hands + np.array(SHIFT), hands), 5)
    np.testing.assert_allclose(mpjpe(hands + np.array(SHIFT), hands, root=0), 0, atol=1e-12)
    shifted = hands.copy()
    shifted[:, 1:] += SHIFT
    np.testing.assert_allclose(mpjpe(shifted, hands, root=0), 5 * 20 / 21)  # the root counts


def test_pa_mpjpe_is_invariant_to_similarity_transforms(hands):
    rng = np.random.default_rng(1)
    np.testing.assert_allclose(pa_mpjpe(similar(rng, hands), hands), 0, atol=1e-9)
    predicted = hands + rng.normal(0, 20, hands.shape)
    np.testing.assert_allclose(pa_mpjpe(similar(rng, predicted), hands), pa_mpjpe(predicted, hands), atol=1e-9)
    assert (pa_mpjpe(predicted, hands) < mpjpe(predicted, hands)).all()


def test_pa_mpjpe_equals_that_of_scipy(hands):
    """Equals scipy.spatial's Procrustes analysis where no reflection helps, and its best rotation where one would."""
    spatial = pytest.importorskip('scipy.spatial')
    rng = np.random.default_rng(2)
    predicted = similar(rng, hands + rng.normal(0, 10, hands.shape))
    ours = pa_mpjpe(predicted, hands)
    for i in range(len(hands)):
        target, moved, _ = spatial.procrustes(hands[i], predicted[i])
        unit = np.linalg.norm(hands[i] - hands[i].mean(0))
        assert ours[i] == pytest.approx(unit * np.linalg.norm(target - moved, axis=1).mean(), abs=1e-6)
    mirrored = predicted * [-1, 1, 1]
    ours = pa_mpjpe(mirrored, hands)
    for i in range(len(hands)):
        moving, fixed = mirrored[i] - mirrored[i].mean(0), hands[i] - hands[i].mean(0)
        rotated = spatial.transform.Rotation.align_vectors(fixed, moving)[0].apply(moving)
        scale = (rotated * fixed).sum() / (rotated**2).sum()
        assert ours[i] == pytest.approx(np.linalg.norm(scale * rotated - fixed, axis=1).mean(), abs=1e-6)


def test_pa_mpjpe_equals_that_of_mmpose(hands):
    functional = pytest.importorskip('mmpose.evaluation.functional.keypoint_eval')
    predicted = hands + np.random.default_rng(3).normal(0, 20, hands.shape)
    theirs = functional.keypoint_mpjpe(predicted, hands, np.ones(hands.shape[:2], bool), 'procrustes')
    assert pa_mpjpe(predicted, hands).mean() == pytest.approx(theirs, abs=1e-9)


def test_a_collapsed_prediction_is_moved_to_the_center(hands):
    aligned = align(np.ones_like(hands), hands)
    np.testing.assert_allclose(aligned, np.broadcast_to(hands.mean(1, keepdims=True), hands.shape))


def sample(hands, shift=(0, 0, 0), valid=None, root=0):
    """A data sample like mmpose's, of hands with 21 joints each; predictions are shifted, except for the wrists."""
    joints = np.concatenate(hands)[None]
    predicted = np.stack(hands)
    others = np.arange(21) != root
    predicted[:, others] += shift
    depths = np.array([hand[root, 2] for hand in hands])
    pixels = np.concatenate([predicted[..., :2] / predicted[..., 2:] * FOCAL + CENTER, predicted[..., 2:]], -1)
    pixels[..., 2] -= depths[:, None]
    visible = np.ones((1, joints.shape[1])) if valid is None else np.repeat(valid, 21)[None]
    return dict(
        gt_instances=dict(keypoints_cam=joints.astype(np.float32), keypoints_visible=visible),
        pred_instances=dict(keypoints=pixels.reshape(1, -1, 3)),
        abs_depth=depths.tolist(),
        focal=FOCAL,
        principal_pt=CENTER,
    )


def evaluate(metric, samples):
    metric.process([], samples)
    return metric.evaluate(len(samples))


def test_back_projection_inverts_the_projection(hands):
    pixels = np.concatenate([hands[..., :2] / hands[..., 2:] * FOCAL + CENTER, hands[..., 2:]], -1)
    np.testing.assert_allclose(pixel_to_camera(pixels, FOCAL, CENTER), hands, atol=1e-9)


def test_metric_of_single_hands(hands):
    perfect = evaluate(HandJointMetric(), [sample([hand]) for hand in hands])
    assert perfect == pytest.approx({'MPJPE': 0, 'PA-MPJPE': 0}, abs=1e-3)
    shifted = evaluate(HandJointMetric(), [sample([hand], SHIFT) for hand in hands])
    assert shifted['MPJPE'] == pytest.approx(5 * 20 / 21, abs=1e-3)
    assert 0 < shifted['PA-MPJPE'] < shifted['MPJPE']


def test_metric_uses_joints_in_mm_as_given(hands):
    items = [sample([hand], (9, 9, 9)) for hand in hands]
    for item, hand in zip(items, hands, strict=True):
        item['pred_instances']['keypoints_cam'] = hand[None] + 7
    assert evaluate(HandJointMetric(), items)['MPJPE'] == pytest.approx(0, abs=1e-3)


def test_metric_ignores_invalid_hands_and_takes_the_mean_pose_per_side(hands):
    rolled = np.roll(hands, -1, axis=1)  # the wrist last, as in InterHand2.6M
    metric = HandJointMetric(root=20, mean_pose=True)
    items = [
        sample([rolled[0], rolled[1]], SHIFT, [1, 1], 20),
        sample([rolled[2], rolled[3]], SHIFT, [1, 0], 20),
        sample([rolled[4], rolled[5]], SHIFT, [0, 1], 20),
    ]
    found = evaluate(metric, items)
    assert found['MPJPE'] == pytest.approx(5 * 20 / 21, abs=1e-3)
    relative = rolled - rolled[:, 20:]
    errors = []
    for side in ([0, 2], [1, 5]):
        errors += mpjpe(np.broadcast_to(relative[side].mean(0), (2, 21, 3)), relative[side]).tolist()
    assert found['MPJPE_of_mean'] == pytest.approx(np.mean(errors), abs=1e-3)
    assert 0 < found['PA-MPJPE_of_mean'] < found['MPJPE_of_mean']


def test_metric_of_mmpose_agrees_on_the_same_predictions(hands):
    """InterHandMetric is 0 for perfect predictions, and the shift of the joints if the mean excludes the wrists."""
    pytest.importorskip('mmpose')
    from mmpose.evaluation.metrics import InterHandMetric

    rolled = np.roll(hands, -1, axis=1)
    for shift, expected in (((0, 0, 0), 0), (SHIFT, 5)):
        item = sample([rolled[0], rolled[1]], shift, [1, 1], 20)
        item['gt_instances']['keypoints_visible'][0, [20, 41]] = 0
        item['pred_instances'].update(hand_type=np.array([[1, 1]]), rel_root_depth=np.zeros(1))
        item.update(hand_type=np.array([[1, 1]]), hand_type_valid=np.ones(1))
        metric = InterHandMetric(modes=['MPJPE', 'HandednessAcc'])
        found = evaluate(metric, [item])
        assert found['MPJPE_all'] == found['MPJPE_interacting'] == pytest.approx(expected, abs=1e-3)
        assert found['HandednessAcc'] == 1


def test_test_data_without_a_valid_hand_are_reported(hands):
    with pytest.raises(UserError, match='no hand of the test data'):
        evaluate(HandJointMetric(), [sample([hands[0]], valid=[0])])


def test_root_out_of_range_is_reported():
    with pytest.raises(UserError, match='root 21'):
        HandJointMetric(root=21)
