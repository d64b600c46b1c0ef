"""Drawing with OpenCV and Pillow: labels, regions, the overview of many images, and rows of frames."""
