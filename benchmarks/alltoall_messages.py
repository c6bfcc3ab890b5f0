"""What benchmarks/alltoall_peers.py exchanges and counts: matrices, the payload of messages, quantiles, rows.

Python's standard library only. A matrix is a list of rows, row = sender, of bytes.
"""
import array
from pathlib import Path

WORD_BYTES = 8


def parse_matrix(text, origin):
    """As aurora reads it (runtime/plan_io/matrix_file.h): what stays on a rank is not exchanged and becomes 0."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not all(word.isascii() and word.isdigit() for word in words):
            raise ValueError(f"{origin}: line {number}: not whole numbers of bytes")
        if words:
            rows.append([int(word) for word in words])
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError(f"{origin}: a traffic matrix is square, a row for each sender")
    for rank, row in enumerate(rows):
        row[rank] = 0
    return rows


def read_matrices(folder, num_ranks):
    """[(name, matrix)] of all files, by name; a comment in a file's first line is the name, else the file has it."""
    matrices = []
    for file in sorted(Path(folder).iterdir()):
        if not file.is_file() or file.name.startswith("."):
            continue
        text = file.read_text(encoding="utf-8")
        matrix = parse_matrix(text, str(file))
        if len(matrix) != num_ranks:
            raise ValueError(f"{file} is for {len(matrix)} GPUs; start that many ranks, not {num_ranks}")
        title = text.splitlines()[0]
        matrices.append((title[1:].strip() if title.startswith("#") else file.stem, matrix))
    if not matrices:
        raise ValueError(f"{folder}: no matrices; aurora-bench alltoall --matrices-out writes them")
    return matrices


def busiest_bytes(matrix):
    """Of the most loaded port."""
    return max(max(sum(row) for row in matrix), max(sum(column) for column in zip(*matrix)))


def common_bytes(matrix):
    """Of every message between two ranks; 0 where they differ."""
    sizes = {row[rank] for sender, row in enumerate(matrix) for rank in range(len(row)) if rank != sender}
    return sizes.pop() if len(sizes) == 1 else 0


def with_diagonal(matrix, size_bytes):
    return [[size_bytes if sender == rank else row[rank] for rank in range(len(row))]
            for sender, row in enumerate(matrix)]


def column(matrix, rank):
    """What a rank receives, by sender."""
    return [row[rank] for row in matrix]


def offsets(sizes):
    """Where each message begins when they lie one after the other."""
    starts = [0]
    for size in sizes[:-1]:
        starts.append(starts[-1] + size)
    return starts


def payload(source, destination, size_bytes):
    """As benchmarks/coded_payload.h: each 8-byte word has 12 bits for either end and 40 for its position."""
    first = (source + 1) << 52 | (destination + 1) << 40
    num_words = -(-size_bytes // WORD_BYTES)
    return array.array("q", range(first, first + num_words)).tobytes()[:size_bytes]


def rounded(value):
    """To four significant digits, as benchmarks/row.cc shows numbers."""
    return round(value, 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0)


def quantile(samples, part):
    return sorted(samples)[int(part * (len(samples) - 1) + 0.5)]


def slowest(times_by_rank):
    """Of each repetition, over all ranks."""
    return [max(times) for times in zip(*times_by_rank)]


def make_row(name, matrix, times_by_rank, num_wrong):
    us = slowest(times_by_rank)
    return {"suite": "alltoall", "row": name, "bytes": busiest_bytes(matrix), "median": rounded(quantile(us, 0.5)),
            "p10": rounded(quantile(us, 0.1)), "p90": rounded(quantile(us, 0.9)), "wrong": num_wrong}


def table(rows):
    """Names and numbers of rows, for the eye."""
    columns = ["row", "bytes", "median", "p10", "p90", "wrong"]
    lines = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    return "".join("  ".join(cell.rjust(width) if index else cell.ljust(width)
                             for index, (cell, width) in enumerate(zip(line, widths))) + "\n" for line in lines)
