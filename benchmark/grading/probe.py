"""Reads Parquet files through in a process of its own, with a limit on memory: a file's path a line on stdin.

The process that scores reads a file only after this one has read it. It imports pyarrow alone.
"""

from __future__ import annotations

import json
import sys

BATCH = 256  # rows at a time
MEMORY, SECONDS = 768 * 2**20, 15  # of this process, and for one file
BATCH_BYTES = 64 * 2**20  # of one batch in memory
ROWS, COLUMNS, ROW_GROUPS = 500_000, 2_000, 20_000
FIELDS = ("sample_id", "amodal", "modal", "image", "seconds")


def read_through(path: str) -> str:
    """What is too much in a file; '' where nothing is."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    metadata = file.metadata
    if metadata.num_rows > ROWS or metadata.num_columns > COLUMNS or metadata.num_row_groups > ROW_GROUPS:
        return f"{metadata.num_rows} rows, {metadata.num_columns} columns and {metadata.num_row_groups} row groups"
    names = [n for n in FIELDS if n in file.schema_arrow.names]
    rows = 0
    for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
        rows += batch.num_rows
        if batch.nbytes > BATCH_BYTES or rows > ROWS:
            return f"more than {BATCH_BYTES} bytes in {batch.num_rows} records, or more than {ROWS} records"
    return ""


def main() -> None:
    """Answer each path on stdin with a line on stdout: what is too much in the file, or nothing."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # the time limit of the caller remains
    for line in sys.stdin:
        try:
            answer = read_through(json.loads(line))
        except Exception as e:  # noqa: BLE001  whatever a damaged file raises is the reason
            answer = " ".join(f"{type(e).__name__}: {e}".split())[:300]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
