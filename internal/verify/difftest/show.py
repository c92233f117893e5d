"""Decodes images with Pillow.

Reads a path a line. Answers each with a line of JSON: the format, and either an error
or a digest of everything that is shown.
"""
import hashlib
import json
import sys
import warnings

from PIL import Image, ImageSequence, PngImagePlugin

warnings.simplefilter("ignore")  # about damaged metadata and large images
Image.MAX_IMAGE_PIXELS = 1 << 26  # Pillow fails at twice as many, and needs 1 GiB for these
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28


def orientation(image):
    """Returns that of Exif. Pillow also finds one in text and XMP; browsers do not."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        value = exif.get(0x0112, 1)
    except Exception:  # a malformed block has none
        value = 1
    return value if value in range(2, 9) else 1


def show(path):
    with Image.open(path) as image:
        shown = hashlib.sha256()
        kind = {"MPO": "JPEG"}.get(image.format, image.format)
        # Only the first image of a multi-picture JPEG is shown by viewers.
        frames = [image] if kind == "JPEG" else ImageSequence.Iterator(image)
        count = 0
        for frame in frames:
            count += 1
            frame.load()
            shown.update(repr((frame.size, frame.info.get("duration"))).encode())
            shown.update(frame.convert("RGBA").tobytes())
        for key in "loop", "gamma", "icc_profile":
            shown.update(repr(image.info.get(key)).encode())
        return {"format": kind, "frames": count, "orientation": orientation(image),
                "shown": shown.hexdigest()}


for line in sys.stdin:
    path = line.rstrip("\n")
    try:
        answer = show(path)
    except Exception as error:  # of any decoder
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
