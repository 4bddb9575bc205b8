"""Limits on foreign files: everything from outside is measured against these before it is read.

A file of a few kilobytes can claim terabytes (pictures, RLE, compressed tables and archives). Limits are far above what
the real datasets hold; what is larger is refused with a reason, and never allocated.
"""

from __future__ import annotations

#: Pixels of a picture, of a mask's frame, of a label map: 16 times a 12-megapixel photo.
MAX_PIXELS = 200_000_000
#: Pixels of a label picture: a striped one takes 50 bytes a pixel to encode, however small its file.
MAX_LABEL_PIXELS = 32_000_000
#: Pixels times scans of a progressive JPEG: each scan goes over all of them, and a file can hold thousands.
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
#: Bytes of one picture file.
MAX_PICTURE_BYTES = 512 * 2**20
#: Bytes of one JSON file that is read whole (what the sources bring is read as a stream).
MAX_JSON_BYTES = 2**30
#: Rows, and bytes of a row group as its footer states them, of a table that somebody else made.
MAX_TABLE_ROWS, MAX_GROUP_BYTES = 5_000_000, 2**32
#: Bytes of a MATLAB file once unpacked (SBD's hold one label map of a photo).
MAX_MAT_BYTES = 256 * 2**20
#: Bytes of a zip's list of members, of which zipfile makes ten times as much; of memory for an archive's index.
MAX_LIST_BYTES, MAX_INDEX_BYTES = 160 * 2**20, 1536 * 2**20
#: How often its own size a compressed tar of pictures may take once decompressed.
MAX_UNPACKED = 20
