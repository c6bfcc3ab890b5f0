"""Transmission orders against linear and integer programs (HiGHS, through scipy), written from the problem's definition.

An order without pre-emption limits and with one partner at a time is a set of matchings with durations. All matchings
of a few GPUs are listed, so that the shortest order is a linear program over their durations and the fewest rounds an
integer one; neither knows Birkhoff's theorem, padding or bottlenecks. Where flows share ports, a simulation by
progressive filling says how long they take, and a linear program over all sets of flows how long the best mix takes.
"""
import itertools

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from planner import BYTES_PER_US_OF_GBPS, MATRIX_FAMILIES, PORTS_GBPS, random_matrix


# 2^12 sets: all pairs of 4 GPUs.
MOST_PAIRS_LISTED = 12


def all_matchings(num_gpus):
    """[matching, sender, receiver] 0/1: permutations, in which a GPU that sends to itself is idle. Every smaller
    matching is part of one of these."""
    return np.array([np.eye(num_gpus)[list(p)] for p in itertools.permutations(range(num_gpus))])


def coverage(matrix, speeds):
    """A, b of `A @ durations >= b`: every pair is served long enough. `speeds` are bytes per unit of time of a pair."""
    n = len(matrix)
    matchings = all_matchings(n)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    served = np.array([matchings[:, i, j] * speeds[i][j] for i, j in pairs]).reshape(len(pairs), len(matchings))
    return served, np.array([matrix[i, j] for i, j in pairs], dtype=float)


def shortest_order(matrix, speeds):
    """Makespan of the best order in which every GPU has at most one partner in each direction at a time."""
    served, needed = coverage(matrix, speeds)
    solved = linprog(np.ones(served.shape[1]), A_ub=-served, b_ub=-needed, bounds=(0, None), method="highs")
    assert solved.status == 0, solved.message
    return solved.fun


def fewest_rounds(matrix, makespan):
    """Rounds of an order that ends at `makespan` (bytes) with the fewest matchings."""
    served, needed = coverage(matrix, np.ones_like(matrix))
    m = served.shape[1]
    constraints = [LinearConstraint(np.hstack([served, np.zeros_like(served)]), lb=needed),
                   LinearConstraint(np.hstack([np.eye(m), -makespan * np.eye(m)]), ub=np.zeros(m)),
                   LinearConstraint(np.hstack([np.ones(m), np.zeros(m)])[None, :], ub=makespan)]
    solved = milp(np.hstack([np.zeros(m), np.ones(m)]), constraints=constraints,
                  integrality=np.hstack([np.zeros(m), np.ones(m)]),
                  bounds=Bounds(np.zeros(2 * m), np.hstack([np.full(m, np.inf), np.ones(m)])))
    assert solved.status == 0, solved.message
    return int(round(solved.fun))


def rate_shared_bound(matrix, ports):
    """Smallest T for which some rates, constant until T, carry the matrix: variables T and the bytes of every pair."""
    n = len(matrix)
    rows = []
    for gpu in range(n):
        for one_way in (np.eye(n)[gpu][:, None] * np.ones(n), np.ones(n)[:, None] * np.eye(n)[gpu]):
            rows.append(np.hstack([[-ports[gpu]], one_way.ravel()]))
    pairs = [(v, v) for v in matrix.astype(float).ravel()]
    solved = linprog(np.hstack([[1], np.zeros(n * n)]), A_ub=np.array(rows), b_ub=np.zeros(2 * n),
                     bounds=[(0, None), *pairs], method="highs")
    assert solved.status == 0, solved.message
    return solved.fun


def max_min_fair_rates(pairs, ports):
    """{(sender, receiver): rate} of flows that share ports max-min fairly: rates grow together until a port is full, then
    those through it stay."""
    rate, growing = dict.fromkeys(pairs, 0.0), set(pairs)
    room = {("send", g): p for g, p in enumerate(ports)} | {("receive", g): p for g, p in enumerate(ports)}
    while growing:
        users = {}
        for i, j in growing:
            users[("send", i)] = users.get(("send", i), 0) + 1
            users[("receive", j)] = users.get(("receive", j), 0) + 1
        step = min(room[side] / count for side, count in users.items())
        full = {side for side, count in users.items() if room[side] / count <= step * (1 + 1e-12)}
        for pair in growing:
            rate[pair] += step
        for side, count in users.items():
            room[side] -= step * count
        growing = {(i, j) for i, j in growing if ("send", i) not in full and ("receive", j) not in full}
    return rate


def max_min_fair_time(transfers, ports):
    """Time until all of {(sender, receiver): bytes} have arrived when all start at once."""
    left = {pair: float(num_bytes) for pair, num_bytes in transfers.items() if num_bytes > 0}
    now = 0.0
    while left:
        rate = max_min_fair_rates(left, ports)
        step = min(left[pair] / rate[pair] for pair in left)
        now += step
        left = {pair: b - rate[pair] * step for pair, b in left.items() if b / rate[pair] > step * (1 + 1e-12)}
    return now


def shortest_unpaced(matrix, ports):
    """Least time of anything that runs without pacing, one flow for a pair: at every moment some set of flows is active at
    its max-min fair rates, so all sets are listed and a linear program says for how long each is. None when there are
    too many sets to list."""
    transfers = {pair: num_bytes for pair, num_bytes in transfers_of(matrix).items() if num_bytes > 0}
    if len(transfers) > MOST_PAIRS_LISTED:
        return None
    columns = []
    for size in range(1, len(transfers) + 1):
        for chosen in itertools.combinations(transfers, size):
            rates = max_min_fair_rates(chosen, ports)
            columns.append([rates.get(pair, 0.0) for pair in transfers])
    solved = linprog(np.ones(len(columns)), A_eq=np.array(columns).T, b_eq=list(transfers.values()), bounds=(0, None),
                     method="highs")
    assert solved.status == 0, solved.message
    return solved.fun


def transfers_of(matrix):
    return {(i, j): int(matrix[i, j]) for i in range(len(matrix)) for j in range(len(matrix)) if i != j}


def check_against_matchings(planner, checks, random, num_instances):
    """`exact` is as short as the best of all orders; nothing is shorter; nobody uses fewer rounds than possible."""
    extra_rounds = []
    for index in range(num_instances):
        n = 2 + index % 4
        matrix = random_matrix(random, n, MATRIX_FAMILIES[index % len(MATRIX_FAMILIES)], largest=60)
        instance = matrix.tolist()
        rows = planner.order(matrix)
        best = shortest_order(matrix, np.ones_like(matrix))
        checks.expect_close(rows["exact"]["makespan"], best, "makespan of exact", instance, 1e-7)
        for name, row in rows.items():
            checks.expect(row["makespan"] >= best * (1 - 1e-7), f"{name} is shorter than possible: "
                          f"{row['makespan']} < {best}", instance)
            checks.expect_close(row["bound"], best, f"bound of {name}", instance, 1e-7)
        checks.expect(rows["exact"]["rounds"] <= max(n * n - 2 * n + 2, 0), "too many rounds of exact", instance)
        if n <= 4 and best > 0:
            fewest = fewest_rounds(matrix, rows["exact"]["bound"])
            extra_rounds.append(rows["exact"]["rounds"] - fewest)
            checks.expect(extra_rounds[-1] >= 0, "exact has fewer rounds than possible", instance)
    counts = np.bincount(extra_rounds)
    print(f"  rounds of exact above the fewest possible, 2 to 4 GPUs: mean {np.mean(extra_rounds):.2f}, "
          + ", ".join(f"+{extra}: {count}" for extra, count in enumerate(counts) if count))


def check_large(planner, checks, random, num_instances):
    """The bound and its exact integers where listing matchings is out of reach."""
    for index in range(num_instances):
        n = int(random.integers(6, 40))
        largest = 10 ** int(random.integers(1, 15))
        matrix = random_matrix(random, n, MATRIX_FAMILIES[index % len(MATRIX_FAMILIES)], largest)
        instance = f"{n} GPUs, {MATRIX_FAMILIES[index % len(MATRIX_FAMILIES)]}, largest {largest}, number {index}"
        row = planner.order(matrix, policy="exact")["exact"]
        bound = max(max(map(int, matrix.sum(axis=0))), max(map(int, matrix.sum(axis=1))))
        checks.expect(row["makespan"] == bound and row["bound"] == bound,
                      f"exact {row['makespan']}, bound {row['bound']}, sums say {bound}", instance)
        checks.expect(row["rounds"] <= n * n - 2 * n + 2, "too many rounds", instance)


def check_unpaced(rows, matrix, ports, checks, instance, over_unpaced):
    """Nothing is shorter than the best mix of fair sets, and aurora is as short."""
    least = shortest_unpaced(matrix, ports)
    if least is None:
        return
    for name, row in rows.items():
        if row["pacing"] == "clock":
            continue
        checks.expect(row["makespan"] >= least * (1 - 1e-7), f"{name} is shorter ({row['makespan']}) than anything "
                      f"unpaced ({least})", instance)
    # Rounds are whole bytes, of at most one round for a pair: each may be up to one byte of the slowest port longer.
    rounding = np.count_nonzero(matrix) / min(ports)
    checks.expect(rows["aurora"]["makespan"] <= least * (1 + 1e-5) + rounding,
                  f"aurora is longer ({rows['aurora']['makespan']}) than the best mix of fair sets ({least})", instance)
    over_unpaced.append((rows["aurora"]["makespan"] / least, least / rows["aurora"]["bound"]))


def check_unequal_ports(planner, checks, random, num_instances):
    """Rate-shared and one-to-one optima, and concurrent groups by an independent fluid simulation."""
    ratios, over_unpaced = [], []
    for index in range(num_instances):
        n = 2 + index % 4
        matrix = random_matrix(random, n, MATRIX_FAMILIES[index % (len(MATRIX_FAMILIES) - 1)], largest=10_000_000)
        if not matrix.any():
            continue
        ports_gbps = [int(p) for p in random.choice(PORTS_GBPS, n)]
        ports = np.array(ports_gbps, dtype=float) * BYTES_PER_US_OF_GBPS
        instance = f"ports {ports_gbps}, matrix {matrix.tolist()}"
        rows = planner.order(matrix, ports_gbps=ports_gbps, options=["--round-cost-us", "0"])
        bound = rate_shared_bound(matrix, ports)
        one_to_one = shortest_order(matrix, np.minimum.outer(ports, ports))
        for name, row in rows.items():
            checks.expect_close(row["bound"], bound, f"bound of {name}", instance, 1e-7)
            checks.expect(row["makespan"] >= bound * (1 - 1e-7), f"{name} is shorter than possible", instance)
        for name in ("rotation", "algorithm1", "longest-first", "sjf", "random"):
            checks.expect(rows[name]["makespan"] >= one_to_one * (1 - 1e-7),
                          f"{name} serves one partner at a time and is shorter than that allows", instance)
        # Rounds are whole bytes: each may be up to one byte of the slowest port longer than the program's.
        rounding = rows["exact"]["rounds"] / min(ports)
        checks.expect(rows["exact"]["makespan"] <= one_to_one * (1 + 1e-7) + rounding,
                      f"exact is longer ({rows['exact']['makespan']}) than the best one-to-one order ({one_to_one})",
                      instance)
        checks.expect_close(rows["group"]["makespan"], max_min_fair_time(transfers_of(matrix), ports),
                            "makespan of group", instance)
        rotation = sum(max_min_fair_time({(i, (i + r) % n): matrix[i, (i + r) % n] for i in range(n)}, ports)
                       for r in range(1, n))
        checks.expect_close(rows["rotation"]["makespan"], rotation, "makespan of rotation", instance)
        check_unpaced(rows, matrix, ports, checks, instance, over_unpaced)
        checks.expect_close(rows["paced"]["makespan"], bound, "makespan of paced", instance, 1e-7)
        best = min(row["makespan"] for row in rows.values() if row["pacing"] != "clock")
        checks.expect(rows["aurora"]["makespan"] <= best * (1 + 1e-5),
                      f"aurora ({rows['aurora']['makespan']}) is not the best of the policies ({best})", instance)
        ratios.append(rows["aurora"]["makespan"] / bound)
    gaps = [gap for _, gap in over_unpaced]
    print(f"  aurora over the least unpaced time: max {max(over for over, _ in over_unpaced):.8f}, which is above the bound "
          f"in {sum(gap > 1 + 1e-6 for gap in gaps)} of {len(gaps)} instances, by up to {max(gaps):.4f}x")
    print(f"  aurora over the rate-shared optimum, rounds for free: mean {np.mean(ratios):.6f}, max {max(ratios):.6f}")


def check_equally_busy_ports(planner, checks, random, num_instances):
    """4 GPUs whose ports are all busy for as long, in both directions: often nothing unpaced reaches the bound, but aurora
    the best mix."""
    gaps = []
    for _ in range(num_instances):
        ports_gbps = [int(p) for p in random.permutation(PORTS_GBPS)]
        ports = np.array(ports_gbps, dtype=float) * BYTES_PER_US_OF_GBPS
        weights = random.random((4, 4)) + 1e-3
        np.fill_diagonal(weights, 0)
        for _ in range(2000):  # Sinkhorn: rows and columns in proportion to the ports
            weights *= (ports / weights.sum(axis=1))[:, None]
            weights *= ports / weights.sum(axis=0)
        matrix = np.rint(weights * 10_000).astype(np.int64)
        rows = planner.order(matrix, ports_gbps=ports_gbps, options=["--round-cost-us", "0"])
        over_unpaced = []
        check_unpaced(rows, matrix, ports, checks, f"ports {ports_gbps}, matrix {matrix.tolist()}", over_unpaced)
        gaps.append(over_unpaced[0][1])
    print(f"  all ports equally busy, 4 GPUs: the least unpaced time is {np.mean(gaps):.4f}x the bound on average, "
          f"{min(gaps):.4f}x at least and {max(gaps):.4f}x at most in {num_instances} instances")


def run(planner, checks, random):
    check_against_matchings(planner, checks, random, 200)
    check_large(planner, checks, random, 150)
    check_unequal_ports(planner, checks, random, 200)
    check_equally_busy_ports(planner, checks, random, 20)
