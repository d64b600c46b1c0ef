"""Check of COCO keypoints, as mmpose's data sets read them."""

from pathlib import Path

from mogacore.errors import UserError

from .coco_files import check_annotations, check_images, check_masks, read_coco, refuse


def check_keypoints(dataset, num_keypoints):
    metainfo = dataset.get('metainfo') or {}
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    content = read_coco(ann_file)
    annotations = [annotation for annotation in content['annotations'] if {'bbox', 'keypoints'} <= annotation.keys()]
    if not annotations:
        raise UserError(f'{ann_file}: no annotation has both bbox and keypoints: use a keypoint file')
    _check_counts(content['categories'], annotations, ann_file, metainfo.get('keypoint_info'), num_keypoints)
    check_annotations(content, annotations, ann_file)
    check_masks(dataset, content, annotations, ann_file)
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    check_images(content['images'], folder, ann_file)


def _check_counts(categories, annotations, ann_file, keypoint_info, num_keypoints):
    if num_keypoints is None:
        if keypoint_info is None:
            return
        num_keypoints = len(keypoint_info)
    remedy = f'make metainfo.keypoint_info and head.out_channels (now {num_keypoints}) match the file'
    if keypoint_info is not None and len(keypoint_info) != num_keypoints:
        problem = f'metainfo.keypoint_info has {len(keypoint_info)} keypoints, but the head has {num_keypoints}'
        raise UserError(f'{problem}: {remedy}')
    for category in categories:
        if len(category.get('keypoints', range(num_keypoints))) != num_keypoints:
            problem = f'category {category["name"]!r} has {len(category["keypoints"])} keypoints'
            raise UserError(f'{ann_file}: {problem}, but the model has {num_keypoints}: {remedy}')
    bad = [annotation for annotation in annotations if len(annotation['keypoints'] or ()) != 3 * num_keypoints]
    if bad:
        found = len(bad[0]['keypoints'] or ())
        problem = f'have {found} keypoint values, but the model needs {3 * num_keypoints}'
        refuse(bad, annotations, ann_file, 'annotations', problem, remedy)
