"""The demo page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import gradio as gr

from mogacore.errors import UserError
from mogacore.files import write_json
from mogacore.runtime.predictor import Predictor

from .uploads import Outcome, predict_upload

CACHE_S = (600, 3600)  # every ten minutes, files older than an hour are deleted
MAX_WAITING = 32
SHOWN_RECORDS = 20  # a browser cannot show those of a long video


def create_page(predictors: Mapping[str, Predictor], max_frames: int) -> gr.Blocks:
    """The page: choose a model, drop a file, see the drawn result, its time and its records.

    Args:
        predictors: Model by name.
        max_frames: Largest number of frames of a video.
    """
    choices = [(f'{name} ({one.task})', name) for name, one in predictors.items()]
    with gr.Blocks(title='mogacore', analytics_enabled=False, delete_cache=CACHE_S) as page:
        gr.Markdown('# mogacore\nDrop an image or a video.')
        with gr.Row():
            with gr.Column(scale=1):
                model = gr.Dropdown(choices, value=choices[0][1], label='Model', elem_id='model')
                upload = gr.File(label='Image or video', elem_id='upload')
                status = gr.Textbox(label='Status', elem_id='status', interactive=False, lines=2)
                download = gr.DownloadButton('Download JSON', elem_id='download', interactive=False)
            with gr.Column(scale=2):
                drawn = gr.Image(
                    label='Result', elem_id='drawn', interactive=False, format='png', buttons=['download', 'fullscreen']
                )
                video = gr.Video(
                    label='Result', elem_id='video', interactive=False, visible=False, buttons=['download']
                )
                records = gr.JSON(label='Records', elem_id='records')
        outputs = [status, drawn, video, records, download]

        def predict(name: str, file: str | None, progress=gr.Progress()) -> Iterator[list]:  # noqa: B008
            """Yield the outputs; their files are deleted after Gradio has copied them."""
            with tempfile.TemporaryDirectory() as folder:
                if file is None:
                    yield ['', *_cleared()]
                    return
                try:
                    outcome = predict_upload(
                        predictors[name], Path(file), Path(folder), max_frames,
                        lambda done, total: progress((done, total), unit='frames'),
                    )  # fmt: skip
                except UserError as error:
                    yield [f'Error: {error}', *_cleared()]
                    return
                path = Path(folder) / f'{Path(file).stem}.json'
                write_json(path, outcome.records)
                yield [
                    _describe(outcome),
                    gr.Image(outcome.drawn, visible=outcome.video is None),
                    gr.Video(outcome.video, visible=outcome.video is not None),
                    outcome.records[:SHOWN_RECORDS],
                    gr.DownloadButton(value=path, interactive=True),
                ]

        gr.on([upload.change, model.change], predict, [model, upload], outputs, api_visibility='private')
    page.queue(max_size=MAX_WAITING)
    return page


def _cleared() -> list:
    """Outputs without a result."""
    return [
        gr.Image(None, visible=True), gr.Video(None, visible=False), None,
        gr.DownloadButton(value=None, interactive=False),
    ]  # fmt: skip


def _describe(outcome: Outcome) -> str:
    """The status line of a result."""
    count, time_ms = len(outcome.records), f'{outcome.time_ms:.1f} ms'
    if outcome.video is None:
        return f'Predicted in {time_ms}'
    cut = f', the first of a longer video: --max-frames {count}' if outcome.is_cut else ''
    return f'Predicted {count} frames in {time_ms} each{cut}'
