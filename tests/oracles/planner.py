"""What the oracles share: running aurora-plan on files, random instances, and counting what was checked.

Nothing here computes anything that the planner computes; that is the oracles' part, each in a file of its own.
"""
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

PORTS_GBPS = [100, 80, 50, 40]
BYTES_PER_US_OF_GBPS = 125


class Planner:
    """The real program, fed with files in a folder of its own."""

    def __init__(self, program):
        self.program = program
        self._folder = tempfile.TemporaryDirectory(prefix="aurora-oracle-")
        self.folder = Path(self._folder.name)

    def _run(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def order(self, matrix, *, ports_gbps=None, policy="all", options=()):
        """{policy: row} of `aurora-plan order --json`."""
        file = self.folder / "matrix.txt"
        file.write_text("".join(" ".join(map(str, row)) + "\n" for row in matrix.tolist()))
        arguments = ["order", "--matrix", file, "--policy", policy, "--json", *options]
        if ports_gbps is not None:
            arguments += ["--ports", ",".join(map(str, ports_gbps))]
        return {row["policy"]: row for row in json.loads(self._run(*arguments))["orders"]}

    def place(self, cluster, models, *, placement="auto", options=()):
        """(rows by name, the plan) of `aurora-plan place --json`."""
        (self.folder / "cluster.toml").write_text("".join(
            "[[gpu]]\n" + "".join(f"{key} = {value}\n" for key, value in gpu.items()) for gpu in cluster))
        files = []
        for model in models:
            files.append(self.folder / f"{model['model']}.json")
            files[-1].write_text(json.dumps(model))
        plan = self.folder / "plan.json"
        text = self._run("place", "--cluster", self.folder / "cluster.toml", "--traffic", ",".join(map(str, files)),
                         "--placement", placement, "--out", plan, "--json", *options)
        return {row["placement"]: row for row in json.loads(text)["placements"]}, json.loads(plan.read_text())


class Checks:
    """Counts what held and keeps, with its instance, what did not."""

    def __init__(self):
        self.num_passed = 0
        self.failures = []

    def expect(self, holds, text, instance):
        if holds:
            self.num_passed += 1
        else:
            self.failures.append(f"{text}\n    instance: {instance}")

    def expect_close(self, have, want, text, instance, relative=1e-9):
        holds = abs(have - want) <= relative * max(abs(have), abs(want), 1e-300)
        self.expect(holds, f"{text}: {have!r}, the oracle says {want!r}", instance)


def random_matrix(random, num_gpus, family, largest=1000):
    """Bytes between GPUs, whole numbers, nothing on the diagonal."""
    n = num_gpus
    if family == "uniform":
        matrix = random.integers(0, largest, (n, n))
    elif family == "sparse":
        matrix = random.integers(1, largest, (n, n)) * (random.random((n, n)) < 0.3)
    elif family == "hot-receiver":
        matrix = random.integers(0, largest, (n, n))
        matrix[:, random.integers(n)] *= 5
    elif family == "hot-sender":
        matrix = random.integers(0, largest, (n, n))
        matrix[random.integers(n)] *= 5
    elif family == "balanced":  # sums of permutations without a fixed point: constant line sums
        matrix = np.zeros((n, n), dtype=np.int64)
        for _ in range(2 * n):
            order = random.permutation(n)
            matrix[order, np.roll(order, 1)] += random.integers(1, largest)
    elif family == "one-pair":
        matrix = np.zeros((n, n), dtype=np.int64)
        matrix[0, n - 1] = largest
    elif family == "zero":
        matrix = np.zeros((n, n), dtype=np.int64)
    else:
        raise ValueError(family)
    matrix = matrix.astype(np.int64)
    np.fill_diagonal(matrix, 0)
    return matrix


MATRIX_FAMILIES = ["uniform", "sparse", "hot-receiver", "hot-sender", "balanced", "one-pair", "zero"]


def random_cluster(random, num_gpus, *, memory_gb=0, is_homogeneous=False):
    gpus = []
    for _ in range(num_gpus):
        port = PORTS_GBPS[0] if is_homogeneous else int(random.choice(PORTS_GBPS))
        compute = 1.0 if is_homogeneous else float(random.choice([1.0, 0.8, 0.5, 0.4]))
        gpus.append({"compute": compute, "port_gbps": port, "memory_gb": memory_gb})
    return gpus


def random_traffic(random, name, *, num_gpus, num_experts, top_k, num_layers):
    """Traffic without samples: every layer has sources of its own size and experts of its own popularity."""
    layers = []
    for _ in range(num_layers):
        popularity = random.dirichlet(np.full(num_experts, random.choice([0.3, 1.0, 5.0])))
        counts = np.zeros((num_gpus, num_experts), dtype=np.int64)
        for source in range(num_gpus):
            # The top_k largest of noisy log-popularities: distinct experts, popular ones more often (Gumbel).
            num_tokens = random.integers(20, 200)
            scores = np.log(popularity + 1e-9) + random.gumbel(size=(num_tokens, num_experts))
            chosen = np.argsort(-scores, axis=1)[:, :top_k]
            counts[source] = np.bincount(chosen.ravel(), minlength=num_experts)
        layers.append({"dispatch": counts.tolist()})
    return {"model": name, "experts": num_experts, "top_k": top_k,
            "dispatch_bytes_per_token": int(random.integers(1000, 9000)),
            "combine_bytes_per_token": int(random.integers(1000, 9000)),
            "expert_bytes": 1_000_000_000,
            "attention_us": round(random.uniform(0, 0.5), 3), "gate_us": round(random.uniform(0, 0.1), 3),
            "expert_us_per_token": round(random.uniform(0.05, 1.0), 3),
            "expert_us_per_hit": round(random.uniform(0, 20.0), 3),
            "aggregate_us": round(random.uniform(0, 0.1), 3), "layers": layers}
