#!/usr/bin/env python3
"""Other implementations of one exchange between GPUs, timed on the matrices of `aurora-bench alltoall`.

    mpirun -np N aurora-bench alltoall --transport nccl --family all --matrices-out FOLDER --json > aurora.jsonl
    mpirun -np N benchmarks/alltoall_peers.py --matrices FOLDER [--repeats 20] [--json] > peers.jsonl

A rank for each GPU; needs torch and mpi4py. Rows are those of aurora-bench, `nccl MATRIX PEER`. Peers, those that are
there on all ranks (the others are named on standard error, with the reason):
    torch-all-to-all-single  torch.distributed.all_to_all_single over NCCL, uneven splits of bytes
    nccl-alltoall            ncclAlltoAll, NCCL 2.28 or newer, on matrices whose messages are all of one size; it
                             exchanges the diagonal too, a message that a rank sends to itself, which no other does
    nccl-pairwise            ncclSend and ncclRecv of all messages that are not empty in one group
Timed as aurora-bench does: receive buffers are wiped, all ranks meet, each takes the time from there to the end of its
stream's work, and the slowest counts. Peers take turns, shuffled anew in every repetition; the first is not counted.
`wrong` counts bytes that are not what their sender wrote there, over all repetitions; one, and the program ends with 1.
"""
import argparse
import ctypes
import dataclasses
import datetime
import faulthandler
import json
import os
import random
import sys
import time
import traceback

import torch
import torch.distributed
from mpi4py import MPI

from alltoall_messages import (column, common_bytes, make_row, offsets, payload, read_matrices, table, with_diagonal)

WIPED = 0xEE
COMM = MPI.COMM_WORLD


def log(text):
    """Rank 0 speaks for all."""
    if COMM.rank == 0:
        print(f"alltoall_peers.py: {text}", file=sys.stderr, flush=True)


def on_rank_0(work):
    """What it returns, on all ranks; all end when it fails."""
    result, failure = None, None
    if COMM.rank == 0:
        try:
            result = work()
        except (OSError, ValueError) as error:
            failure = str(error)
    result, failure = COMM.bcast((result, failure))
    if failure is not None:
        log(failure)
        sys.exit(1)
    return result


# ---- Where a rank computes


class Gpu:
    transport = "nccl"

    def __init__(self):
        if torch.cuda.device_count() == 0:
            raise RuntimeError("torch sees no GPU")
        local_rank = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", COMM.rank))
        self.device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(self.device)
        self.name = torch.cuda.get_device_name(self.device)
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)
        self.stream_address = self.stream.cuda_stream
        self.share()

    def share(self):
        """What NCCL needs where ranks share a GPU: launch/nccl_environment.h."""
        host = MPI.Get_processor_name()
        uuid = getattr(torch.cuda.get_device_properties(self.device), "uuid", None)
        gpus = COMM.allgather(str(uuid) if uuid is not None else f"{host} {self.device.index}")
        hosts = COMM.allgather(host)
        if len(set(gpus)) == len(gpus):
            return
        log(f"{len(gpus)} ranks on {len(set(gpus))} GPUs: NCCL runs over sockets between ranks")
        os.environ.setdefault("NCCL_HOSTID", f"{host}-rank-{COMM.rank}")
        if len(set(hosts)) == 1:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
            os.environ.setdefault("NCCL_IB_DISABLE", "1")

    def finish(self):
        self.stream.synchronize()


class Cpu:
    """To try the script where there is no GPU."""
    transport = "gloo"
    device = torch.device("cpu")
    name = "cpu"
    stream_address = None

    def finish(self):
        pass


class Buffers:
    """One rank's messages, in the order of their peers."""

    def __init__(self, matrix, place):
        rank = COMM.rank
        self.sizes_sent, self.sizes_received = matrix[rank], column(matrix, rank)
        self.send = self.filled([payload(rank, peer, size) for peer, size in enumerate(self.sizes_sent)], place)
        self.expected = self.filled([payload(peer, rank, size) for peer, size in enumerate(self.sizes_received)], place)
        self.receive = torch.empty_like(self.expected)

    @staticmethod
    def filled(messages, place):
        data = bytearray(b"".join(messages))
        host = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return host.to(place.device, copy=True)

    def wipe(self):
        self.receive.fill_(WIPED)

    def count_wrong(self):
        return int((self.receive != self.expected).sum())


# ---- NCCL without torch


class UniqueId(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_byte * 128)]


MESSAGE = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
SIGNATURES = {
    "ncclGetVersion": [ctypes.POINTER(ctypes.c_int)],
    "ncclGetUniqueId": [ctypes.POINTER(UniqueId)],
    "ncclCommInitRank": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, UniqueId, ctypes.c_int],
    "ncclCommDestroy": [ctypes.c_void_p],
    "ncclGroupStart": [],
    "ncclGroupEnd": [],
    "ncclSend": MESSAGE,  # buffer, count, type, peer, communicator, stream
    "ncclRecv": MESSAGE,
    "ncclAlltoAll": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p],
}
NCCL_INT8 = 0


class Nccl:
    """The library that torch has loaded, or that the loader finds; a communicator after `connect`."""

    def __init__(self):
        self.library = ctypes.CDLL("libnccl.so.2")
        self.has_alltoall = hasattr(self.library, "ncclAlltoAll")
        self.library.ncclGetErrorString.argtypes = [ctypes.c_int]
        self.library.ncclGetErrorString.restype = ctypes.c_char_p
        for name, arguments in SIGNATURES.items():
            if name == "ncclAlltoAll" and not self.has_alltoall:
                continue
            function = getattr(self.library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
        version = ctypes.c_int()
        self.require(self.library.ncclGetVersion(ctypes.byref(version)))
        self.version = version.value
        self.communicator = ctypes.c_void_p()

    def require(self, *results):
        for result in results:
            if result != 0:
                raise RuntimeError(f"NCCL: {self.library.ncclGetErrorString(result).decode()} ({result})")

    def connect(self):
        """Collective."""
        identity = UniqueId()
        if COMM.rank == 0:
            self.require(self.library.ncclGetUniqueId(ctypes.byref(identity)))
        identity = UniqueId.from_buffer_copy(COMM.bcast(bytes(identity)))
        self.require(self.library.ncclCommInitRank(ctypes.byref(self.communicator), COMM.size, identity, COMM.rank))

    def close(self):
        if self.communicator:
            self.require(self.library.ncclCommDestroy(self.communicator))


# ---- Peers: `exchanged` is the matrix that one carries for a matrix, None where it cannot, and `prepare` makes the
# ---- function that submits the exchange.


class TorchAllToAllSingle:
    name = "torch-all-to-all-single"

    def __init__(self, place, timeout):
        hosts = COMM.allgather(MPI.Get_processor_name())
        address = "127.0.0.1" if len(set(hosts)) == 1 else hosts[0]
        store = None
        if COMM.rank == 0:
            store = torch.distributed.TCPStore(address, 0, COMM.size, True, timeout, False)
        port = COMM.bcast(store.port if store is not None else None)
        if store is None:
            store = torch.distributed.TCPStore(address, port, COMM.size, False, timeout)
        torch.distributed.init_process_group(place.transport, store=store, rank=COMM.rank, world_size=COMM.size,
                                             timeout=timeout)

    def exchanged(self, matrix):
        return matrix

    def prepare(self, buffers):
        received, sent = buffers.sizes_received, buffers.sizes_sent
        return lambda: torch.distributed.all_to_all_single(buffers.receive, buffers.send, received, sent)


class NcclAlltoAll:
    name = "nccl-alltoall"

    def __init__(self, nccl, place):
        self.nccl, self.stream = nccl, ctypes.c_void_p(place.stream_address)

    def exchanged(self, matrix):
        size = common_bytes(matrix)
        return with_diagonal(matrix, size) if size > 0 else None

    def prepare(self, buffers):
        nccl, call = self.nccl, self.nccl.library.ncclAlltoAll
        arguments = (ctypes.c_void_p(buffers.send.data_ptr()), ctypes.c_void_p(buffers.receive.data_ptr()),
                     buffers.sizes_sent[0], NCCL_INT8, nccl.communicator, self.stream)
        return lambda: nccl.require(call(*arguments))


class NcclPairwise:
    name = "nccl-pairwise"

    def __init__(self, nccl, place):
        self.nccl, self.stream = nccl, ctypes.c_void_p(place.stream_address)

    def exchanged(self, matrix):
        return matrix

    def prepare(self, buffers):
        nccl, library = self.nccl, self.nccl.library
        calls = [(library.ncclGroupStart, ())]
        for function, buffer, sizes in ((library.ncclSend, buffers.send, buffers.sizes_sent),
                                        (library.ncclRecv, buffers.receive, buffers.sizes_received)):
            for peer, (size, offset) in enumerate(zip(sizes, offsets(sizes))):
                if size > 0:
                    calls.append((function, (ctypes.c_void_p(buffer.data_ptr() + offset), size, NCCL_INT8, peer,
                                             nccl.communicator, self.stream)))
        calls.append((library.ncclGroupEnd, ()))
        return lambda: nccl.require(*[function(*arguments) for function, arguments in calls])


def is_everywhere(name, problem):
    """Whether no rank has a problem with a peer; the first is told."""
    problems = [text for text in COMM.allgather(problem) if text]
    if problems:
        log(f"{name}: not here: {problems[0]}")
    return not problems


def load_nccl():
    """The library or None, and what is wrong with it."""
    try:
        return Nccl(), ""
    except (OSError, AttributeError, RuntimeError) as error:
        return None, str(error)


def available_peers(place, timeout):
    """And NCCL, connected when a peer needs it."""
    peers = []
    backends = torch.distributed if torch.distributed.is_available() else None
    is_built = backends is not None and getattr(backends, f"is_{place.transport}_available")()
    if is_everywhere(TorchAllToAllSingle.name, "" if is_built else f"torch was built without {place.transport}"):
        peers.append(TorchAllToAllSingle(place, timeout))
    nccl, problem = load_nccl() if place.transport == "nccl" else (None, "it needs GPUs")
    if not is_everywhere("nccl-alltoall, nccl-pairwise", problem):
        return peers, None
    log(f"NCCL {nccl.version}; torch has {'.'.join(map(str, torch.cuda.nccl.version()))}")
    nccl.connect()
    if is_everywhere(NcclAlltoAll.name, "" if nccl.has_alltoall else f"NCCL {nccl.version} has no ncclAlltoAll"):
        peers.append(NcclAlltoAll(nccl, place))
    peers.append(NcclPairwise(nccl, place))
    return peers, nccl


# ---- Measuring


@dataclasses.dataclass
class Contender:
    """One peer on one matrix, as this rank sees it."""
    peer: str
    matrix: list
    buffers: Buffers
    submit: object
    us: list = dataclasses.field(default_factory=list)
    num_wrong: int = 0


def contenders_for(name, matrix, peers, place):
    plain = Buffers(matrix, place)
    contenders = []
    for peer in peers:
        exchanged = peer.exchanged(matrix)
        if exchanged is None:
            log(f"{name}: without {peer.name}: its messages are not all of one size")
            continue
        buffers = plain if exchanged is matrix else Buffers(exchanged, place)
        contenders.append(Contender(peer.name, matrix, buffers, peer.prepare(buffers)))
    return contenders


def run_once(contender, place, seconds):
    contender.buffers.wipe()
    place.finish()
    faulthandler.dump_traceback_later(seconds, exit=True)
    COMM.Barrier()
    start = time.perf_counter()
    contender.submit()
    place.finish()
    us = (time.perf_counter() - start) * 1e6
    faulthandler.cancel_dump_traceback_later()
    contender.num_wrong += contender.buffers.count_wrong()
    return us


def repeat_in_turns(contenders, place, arguments):
    turns = random.Random(arguments.seed)  # the same on all ranks
    order = list(contenders)
    for repeat in range(arguments.repeats + 1):
        turns.shuffle(order)
        for contender in order:
            us = run_once(contender, place, arguments.timeout)
            if repeat > 0:
                contender.us.append(us)


def rows_of(name, contenders, place, stamp):
    """On rank 0; none on the others."""
    rows = []
    for contender in contenders:
        outcomes = COMM.gather((contender.us, contender.num_wrong))
        if outcomes is None:
            continue
        row = make_row(f"{place.transport} {name} {contender.peer}", contender.matrix, [us for us, _ in outcomes],
                       sum(wrong for _, wrong in outcomes))
        rows.append({**row, "device": place.name, "stamp": stamp})
    return rows


def make_stamp(arguments, nccl):
    stamp = {"torch": torch.__version__, "seed": arguments.seed, "repeats": arguments.repeats,
             "load": round(os.getloadavg()[0], 3)}
    if torch.version.cuda is not None:
        stamp["cuda"] = torch.version.cuda
    if nccl is not None:
        stamp["nccl"] = nccl.version
    return stamp


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrices", required=True, help="folder with files as aurora-bench's --matrix reads them")
    parser.add_argument("--repeats", default=20, type=int, help="exchanges of each row that count")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of the table")
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--timeout", default=120, type=float, help="seconds that one exchange, or connecting, may take")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"],
                        help="cpu: torch over gloo, to try the script")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.timeout <= 0:
        parser.error("--repeats and --timeout must be positive")
    return arguments


def main():
    arguments = parse_arguments()
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    if COMM.size < 2:
        sys.exit("alltoall_peers.py: start two ranks or more with mpirun")
    matrices = on_rank_0(lambda: read_matrices(arguments.matrices, COMM.size))
    faulthandler.dump_traceback_later(arguments.timeout, exit=True)
    place = Gpu() if arguments.device == "cuda" else Cpu()
    peers, nccl = available_peers(place, datetime.timedelta(seconds=arguments.timeout))
    faulthandler.cancel_dump_traceback_later()
    if not peers:
        sys.exit(1)
    rows = []
    stamp = make_stamp(arguments, nccl)
    for name, matrix in matrices:
        contenders = contenders_for(name, matrix, peers, place)
        repeat_in_turns(contenders, place, arguments)
        for row in rows_of(name, contenders, place, stamp):
            rows.append(row)
            if arguments.json:
                print(json.dumps(row), flush=True)
    if rows and not arguments.json:
        print(table(rows), end="", flush=True)
    num_wrong = COMM.bcast(sum(row["wrong"] for row in rows))
    faulthandler.dump_traceback_later(arguments.timeout, exit=True)
    if nccl is not None:
        nccl.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()
    if num_wrong > 0:
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # the other ranks would wait for this one
        traceback.print_exc()
        sys.stderr.flush()
        COMM.Abort(1)
