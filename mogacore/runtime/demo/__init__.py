"""Demo page: predictions of exported files in a browser, with Gradio."""

from .command import add_arguments, demo

__all__ = ['add_arguments', 'demo']
