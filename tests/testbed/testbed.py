#!/usr/bin/env python3
"""An emulated cluster on one machine: hosts in network namespaces behind a non-blocking switch, every port shaped in
both directions, and one command under mpirun across them.

    tests/testbed/run.sh --hosts 8 --gbps 2,2,2,2,1,1,1,1 -- COMMAND [ARGUMENT...]

Each host is a namespace with one interface; the switch is a bridge in a namespace of its own, in which mpirun runs.
A token bucket at both ends of each cable gives a port of the same rate either way. With --hosts-per-node a host has a
second such cable, to a switch of its node, for what it and its node-mates send each other (--inside-gbps).

Before the command every port may be measured with a bare TCP stream (--calibrate); afterwards it prints what TCP had
to send again and how idle the processors were. The command sees TESTBED_CLUSTER, a cluster file with the ports
as measured or, without --calibrate, as asked for.

All of it goes when the command ends, fails or is interrupted; nothing outside the namespaces is touched. Needs root,
iproute2 and Open MPI. Ends with the command's exit code, 125 when the testbed itself fails.
"""
import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SUBNET = "10.77.0"
SWITCH_ADDRESS = f"{SUBNET}.254"
MTU = 9000
FRAME_BYTES = 14  # of Ethernet, around a packet
STREAM_PORT = 5201
EXIT_TESTBED = 125


class TestbedError(Exception):
    pass


def call(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise TestbedError(f"{shlex.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Testbed:
    """The namespaces, cables and buckets. `close` removes all of it and may be called at any time."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.prefix = f"aurora{os.getpid()}"
        self.switch = f"{self.prefix}sw"
        self.namespaces = []

    def host(self, index):
        return f"{self.prefix}h{index}"

    @staticmethod
    def address(index):
        return f"{SUBNET}.{index + 1}"

    def build(self):
        self.add_namespace(self.switch)
        self.add_bridge("sw")
        call("ip", "-n", self.switch, "addr", "add", f"{SWITCH_ADDRESS}/24", "dev", "sw")
        for index in range(self.arguments.hosts):
            self.add_host(index)

    def add_namespace(self, name):
        call("ip", "netns", "add", name)
        self.namespaces.append(name)
        call("ip", "-n", name, "link", "set", "lo", "up")

    def add_bridge(self, name):
        call("ip", "-n", self.switch, "link", "add", name, "type", "bridge")
        call("ip", "-n", self.switch, "link", "set", name, "mtu", str(MTU), "up")

    def add_host(self, index):
        host = self.host(index)
        self.add_namespace(host)
        self.add_cable(index, "eth0", f"p{index}", "sw", self.arguments.gbps[index])
        call("ip", "-n", host, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
        self.add_route(index, f"{SUBNET}.0/24", "eth0")
        # Machines differ in what they give a new connection, and BBR's estimates of a port's rate do not follow
        # exchanges of milliseconds.
        self.set_kernel(host, "net/ipv4/tcp_congestion_control", self.arguments.congestion_control)
        self.set_kernel(host, "net/ipv4/tcp_slow_start_after_idle", "0")
        if self.arguments.socket_bytes:
            for buffer in ("tcp_wmem", "tcp_rmem"):
                self.set_kernel(host, f"net/ipv4/{buffer}", "4096 {0} {0}".format(self.arguments.socket_bytes))
        if self.node_mates(index):
            self.add_inside_link(index)

    def add_inside_link(self, index):
        """A second cable, to the node's own switch, over which node-mates reach each other by their one address."""
        node, place = divmod(index, self.arguments.hosts_per_node)
        if place == 0:
            self.add_bridge(f"node{node}")
        self.add_cable(index, "eth1", f"i{index}", f"node{node}", self.arguments.inside_gbps)
        for mate in self.node_mates(index):
            self.add_route(index, f"{self.address(mate)}/32", "eth1")

    def add_cable(self, index, device, cable, bridge, gbps):
        """From a host's device to a bridge of the switch, with a bucket at both ends."""
        host = self.host(index)
        call("ip", "-n", host, "link", "add", device, "mtu", str(MTU), "type", "veth", "peer", "name", cable, "netns",
             self.switch)
        call("ip", "-n", host, "link", "set", device, "gso_max_size", str(self.arguments.segment_bytes), "up")
        call("ip", "-n", self.switch, "link", "set", cable, "mtu", str(MTU), "master", bridge, "up")
        if self.arguments.processor_per_port:
            self.receive_on(host, device, 2 * index)
            self.receive_on(self.switch, cable, 2 * index + 1)
        for namespace, end in ((host, device), (self.switch, cable)):
            call("tc", "-n", namespace, "qdisc", "add", "dev", end, "root", "handle", "1:", "tbf", *self.bucket(gbps))

    def add_route(self, index, destination, device):
        """With the same least wait for all before TCP sends again what it believes lost: the default of 200 ms is far
        above a whole exchange."""
        call("ip", "-n", self.host(index), "route", "replace", destination, "dev", device, "src", self.address(index),
             "rto_min", f"{self.arguments.rto_min_ms}ms")

    def receive_on(self, namespace, device, index):
        """One processor takes what a device receives. A bucket hands packets on from whichever processor it ran on, and
        TCP takes packets that overtake each other between processors for lost."""
        words = ["00000000"] * ((os.cpu_count() + 31) // 32)
        processor = index % os.cpu_count()
        words[-1 - processor // 32] = f"{1 << processor % 32:08x}"
        call("ip", "netns", "exec", namespace, "sh", "-c", 'echo "$2" >"/sys/class/net/$1/queues/rx-0/rps_cpus"', "sh",
             device, ",".join(words))

    def set_kernel(self, namespace, name, value):
        call("ip", "netns", "exec", namespace, "sh", "-c", 'echo "$2" >"/proc/sys/$1"', "sh", name, value)

    def node_mates(self, index):
        size = self.arguments.hosts_per_node
        first = index // size * size
        return [mate for mate in range(first, min(first + size, self.arguments.hosts)) if mate != index]

    def bucket(self, gbps):
        """Arguments of tc's tbf: rate, bucket and queue. A small bucket, because what fits it passes unshaped."""
        limit = self.arguments.limit_bytes or max(int(gbps * 1e9 / 8 * 0.05), 1 << 20)
        return ["rate", f"{gbps}gbit", "burst", str(self.arguments.burst_bytes), "limit", str(limit)]

    def retransmissions(self):
        """TCP segments sent again so far, over all hosts."""
        total = 0
        for index in range(self.arguments.hosts):
            lines = [line.split() for line in call("ip", "netns", "exec", self.host(index), "cat", "/proc/net/snmp")
                     .splitlines() if line.startswith("Tcp:")]
            total += int(lines[1][lines[0].index("RetransSegs")])
        return total

    def close(self):
        for name in reversed(self.namespaces):
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for name in reversed(self.namespaces):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self.namespaces = []


# --- bare streams -----------------------------------------------------------------------------------------------------

SINK = f"""
import socket, sys, time
listener = socket.create_server(("", {STREAM_PORT}))
print("listening", flush=True)
listener.settimeout(20)
stream, _ = listener.accept()
stream.settimeout(20)
buffer = bytearray(1 << 20)
total, begin = 0, None
while (count := stream.recv_into(buffer)) > 0:
    total += count
    if begin is None and total >= {{skipped}}:
        begin, counted_from = time.perf_counter(), total
end = time.perf_counter()
print((total - counted_from) * 8 / (end - begin) / 1e9)
"""
SOURCE = f"""
import socket
stream = socket.create_connection(("{{address}}", {STREAM_PORT}), timeout=20)
chunk = memoryview(bytes(1 << 20))
left = {{num_bytes}}
while left > 0:
    left -= stream.send(chunk[:min(left, len(chunk))])
"""


def stream_gbps(testbed, source, destination, gbps, seconds=0.3):
    """Rate of one TCP stream, without its first quarter, in 10^9 payload bit/s."""
    num_bytes = max(int(gbps * 1e9 / 8 * seconds), 1 << 20)
    sink = subprocess.Popen(["ip", "netns", "exec", testbed.host(destination), sys.executable, "-c",
                             SINK.format(skipped=num_bytes // 4)], stdout=subprocess.PIPE, text=True)
    try:
        if sink.stdout.readline().strip() != "listening":
            raise TestbedError(f"host {destination} cannot listen")
        call("ip", "netns", "exec", testbed.host(source), sys.executable, "-c",
             SOURCE.format(address=testbed.address(destination), num_bytes=num_bytes), timeout=60)
        return float(sink.communicate(timeout=60)[0])
    finally:
        sink.kill()


def calibrate(testbed):
    """Measured rate of every port, the slower of its directions; against the fastest port of another node."""
    arguments = testbed.arguments
    measured = []
    for index in range(arguments.hosts):
        strangers = [peer for peer in range(arguments.hosts) if peer != index and peer not in testbed.node_mates(index)]
        if not strangers:
            raise TestbedError(f"host {index} has no host outside its node to be calibrated against")
        peer = max(strangers, key=lambda host: arguments.gbps[host])
        expected = min(arguments.gbps[index], arguments.gbps[peer])
        if expected < arguments.gbps[index]:
            measured.append(arguments.gbps[index])  # no peer is fast enough to fill this port
            continue
        measured.append(min(stream_gbps(testbed, index, peer, expected), stream_gbps(testbed, peer, index, expected)))
    print("testbed: ports, Gbit/s asked / streamed: "
          + ", ".join(f"{asked:g}/{found:.3f}" for asked, found in zip(arguments.gbps, measured)), file=sys.stderr)
    return measured


# --- the command ------------------------------------------------------------------------------------------------------

AGENT = """#!/bin/sh
# mpirun's remote shell: starts what it is given on a host of the testbed.
set -eu
host=$1
shift
index=${{host#h}}
export NCCL_HOSTID="$host" NCCL_SOCKET_IFNAME=eth0 NCCL_IB_DISABLE=1 NCCL_NVLS_ENABLE=0
shares="{sm_shares}"
if [ -n "$shares" ]; then
  CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=$(echo "$shares" | cut -d, -f$((index + 1)))
  export CUDA_MPS_ACTIVE_THREAD_PERCENTAGE
fi
export TESTBED_HOST="$host" TESTBED_COMMAND="$*"
# A host name of its own, or Open MPI takes all ranks for one machine's.
exec ip netns exec "{prefix}$host" unshare --uts sh -c 'hostname "$TESTBED_HOST"; exec sh -c "$TESTBED_COMMAND"'
"""


def cluster_text(gbps, arguments):
    lines = []
    if arguments.hosts_per_node > 1:
        lines.append(f"link_gbps = {arguments.inside_gbps:g}\n")
    for index, rate in enumerate(gbps):
        lines.append(f"[[gpu]]\ncount = 1\ncompute = 1.0\nport_gbps = {rate:.4f}\nmemory_gb = 1000\n"
                     f"node = {index // arguments.hosts_per_node}\n")
    return "\n".join(lines)


def mpirun_command(testbed, agent):
    arguments = testbed.arguments
    hosts = ",".join(f"h{index}:{arguments.ranks_per_host}" for index in range(arguments.hosts))
    network = ["--mca", "oob_tcp_if_include", f"{SUBNET}.0/24", "--mca", "btl", "tcp,self", "--mca", "pml", "ob1",
               "--mca", "btl_tcp_if_include", f"{SUBNET}.0/24"]
    # A machine may have told Open MPI to stay on it.
    launch = ["--mca", "plm", "rsh", "--mca", "plm_rsh_agent", str(agent), "--mca", "plm_rsh_no_tree_spawn", "1",
              "--host", hosts, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
    return ["ip", "netns", "exec", testbed.switch, "mpirun", "-np", str(arguments.hosts * arguments.ranks_per_host),
            *launch, *network, *arguments.mpirun_arguments, *arguments.command]


def busy_and_idle():
    values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(values), values[3] + values[4]


def run_command(testbed, folder, gbps):
    agent = folder / "agent"
    agent.write_text(AGENT.format(prefix=testbed.prefix, sm_shares=testbed.arguments.sm_shares))
    agent.chmod(0o755)
    cluster = folder / "cluster.toml"
    cluster.write_text(cluster_text(gbps, testbed.arguments))
    environment = {**os.environ, "TESTBED_CLUSTER": str(cluster), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    resent, (total, idle), begin = testbed.retransmissions(), busy_and_idle(), time.monotonic()
    process = subprocess.Popen(mpirun_command(testbed, agent), env=environment, start_new_session=True)
    timer = threading.Timer(testbed.arguments.timeout, lambda: os.killpg(process.pid, signal.SIGTERM))
    timer.start()
    try:
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    total_after, idle_after = busy_and_idle()
    share = (idle_after - idle) / max(total_after - total, 1)
    print(f"testbed: {time.monotonic() - begin:.1f} s, {testbed.retransmissions() - resent} TCP segments sent again, "
          f"processors {100 * share:.0f} % idle", file=sys.stderr)
    return code if code >= 0 else 128 - code


# --- arguments --------------------------------------------------------------------------------------------------------

def positive(convert):
    def parse(text):
        value = convert(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} must be above 0")
        return value
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=positive(int), default=8)
    parser.add_argument("--gbps", default="1", help="rate of every port, or one of each host, 10^9 bit/s")
    parser.add_argument("--hosts-per-node", type=positive(int), default=1)
    parser.add_argument("--inside-gbps", type=positive(float), help="rate between hosts of one node")
    parser.add_argument("--ranks-per-host", type=positive(int), default=1)
    parser.add_argument("--burst-bytes", type=positive(int), default=32 << 10, help="bucket of each port")
    parser.add_argument("--limit-bytes", type=positive(int), help="queue of each port; default 50 ms of its rate")
    parser.add_argument("--rto-min-ms", type=positive(int), default=5, help="least TCP retransmission timeout")
    parser.add_argument("--socket-bytes", type=positive(int), help="most that a TCP socket holds in either direction")
    parser.add_argument("--segment-bytes", type=positive(int),
                        help="most that TCP hands to a port in one piece; default a little below the bucket, since a "
                        "port cuts larger ones into packets, which costs it more time than it has at some Gbit/s")
    parser.add_argument("--congestion-control", default="reno",
                        help="of TCP, as the kernel names it; reno is part of every kernel")
    parser.add_argument("--processor-per-port", action=argparse.BooleanOptionalAction, default=None,
                        help="what a port receives is taken in by one processor, in order; default where there are two "
                        "processors or more for each host")
    parser.add_argument("--calibrate", action="store_true", help="measure every port with a bare stream first")
    parser.add_argument("--sm-shares", default="", help="per host, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
    parser.add_argument("--mpirun-arguments", type=shlex.split, default=[], help="further flags for mpirun")
    parser.add_argument("--timeout", type=positive(float), default=600, help="seconds that the command may take")
    parser.add_argument("command", nargs="*", help="program and arguments, after --")
    arguments = parser.parse_args()
    if not 2 <= arguments.hosts <= 250:
        parser.error(f"--hosts is {arguments.hosts}; it must be from 2 to 250")
    if arguments.processor_per_port is None:
        arguments.processor_per_port = os.cpu_count() >= 2 * arguments.hosts
    if arguments.segment_bytes is None:
        arguments.segment_bytes = arguments.burst_bytes * 11 // 12
    rates = arguments.gbps.split(",")
    try:
        arguments.gbps = [positive(float)(rate) for rate in rates] * (arguments.hosts if len(rates) == 1 else 1)
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(f"--gbps: {error}")
    if len(arguments.gbps) != arguments.hosts:
        parser.error(f"--gbps names {len(arguments.gbps)} rates for {arguments.hosts} hosts")
    if arguments.hosts_per_node > 1 and arguments.inside_gbps is None:
        parser.error("--hosts-per-node needs --inside-gbps")
    if arguments.burst_bytes < MTU + FRAME_BYTES:
        parser.error(f"--burst-bytes {arguments.burst_bytes} is less than a packet of {MTU + FRAME_BYTES} bytes, which "
                     "would never pass")
    if arguments.sm_shares and len(arguments.sm_shares.split(",")) != arguments.hosts:
        parser.error(f"--sm-shares must name one share for each of the {arguments.hosts} hosts")
    if not arguments.command:
        parser.error("a command is missing after --")
    return arguments


def main():
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("testbed: making network namespaces takes root")
    for tool in ("ip", "tc", "mpirun", "unshare"):
        if shutil.which(tool) is None:
            sys.exit(f"testbed: {tool} is missing (Debian: iproute2, openmpi-bin, util-linux)")

    def interrupted(number, _):
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, interrupted)
    testbed = Testbed(arguments)
    try:
        testbed.build()
        gbps = calibrate(testbed) if arguments.calibrate else arguments.gbps
        with tempfile.TemporaryDirectory() as folder:
            return run_command(testbed, Path(folder), gbps)
    except (TestbedError, subprocess.TimeoutExpired) as error:
        print(f"testbed: {error}", file=sys.stderr)
        return EXIT_TESTBED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        testbed.close()


if __name__ == "__main__":
    sys.exit(main())
