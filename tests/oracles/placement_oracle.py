"""Placements of one model alone on its GPUs, against scipy.

One expert per GPU: a sweep over the first maximum of the layer time; under each threshold the least second maximum is
a bottleneck assignment, found by asking linear_sum_assignment whether the allowed pairs hold a perfect matching.
Several experts per GPU: a mixed-integer program, itself checked by trying all placements where there are few.
"""
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

from layer_model import LayerModel, all_placements, exclusive_us, placements_of
from planner import random_cluster, random_traffic

POLICIES = ["auto", "contiguous", "round-robin", "rga", "paper", "lina"]


def has_perfect_matching(allowed):
    rows, columns = linear_sum_assignment(np.where(allowed, 0, 1))
    return allowed[rows, columns].all()


def bottleneck_assignment(costs, allowed):
    """Smallest largest cost of a perfect matching of allowed pairs; infinite when there is none."""
    if not has_perfect_matching(allowed):
        return np.inf
    values = np.unique(costs[allowed])
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if has_perfect_matching(allowed & (costs <= values[middle])):
            high = middle
        else:
            low = middle + 1
    return values[low]


def one_expert_per_gpu_us(model):
    """The optimum over all bijections of experts to GPUs."""
    n = model.num_gpus
    sources, copies = model.pairs.sum(axis=1), model.pairs.sum(axis=0)
    # [expert, GPU]
    busiest = np.maximum(sources[None, :] - model.pairs.T, copies[:, None] - model.pairs.T)
    before = model.gate[None, :] + busiest * model.dispatch_bytes / model.port[None, :]
    after = (model.expert_work[:, None] / model.compute[None, :]
             + busiest * model.combine_bytes / model.port[None, :])
    best = np.inf
    for threshold in np.unique(before):
        # Every expert needs a GPU, so that a lower threshold than each expert's cheapest GPU allows nothing.
        if threshold >= before.min(axis=1).max():
            best = min(best, threshold + bottleneck_assignment(after, before <= threshold))
    assert n == model.num_experts and np.isfinite(best)
    return best + model.aggregate.max()


def several_experts_per_gpu_us(model, slots):
    """The optimum by HiGHS: x[expert, GPU] binary, then T1 >= G + N and T2 >= F + C of every GPU."""
    e, n = model.num_experts, model.num_gpus
    size = e * n + 2
    sources, copies = model.pairs.sum(axis=1), model.pairs.sum(axis=0)
    rows, low, high = [], [], []

    def add(entries, lower, upper):
        row = np.zeros(size)
        for index, value in entries:
            row[index] += value
        rows.append(row)
        low.append(lower)
        high.append(upper)

    for expert in range(e):
        add([(expert * n + gpu, 1) for gpu in range(n)], 1, 1)
    for gpu in range(n):
        here = [expert * n + gpu for expert in range(e)]
        add([(index, 1) for index in here], -np.inf, slots)
        # Copies sent: sources[gpu] - sum of local ones. Received: copies of the experts here - local ones.
        for constant, coefficients in ((sources[gpu], -model.pairs[gpu]), (0, copies - model.pairs[gpu])):
            dispatch = model.dispatch_bytes / model.port[gpu]
            combine = model.combine_bytes / model.port[gpu]
            work = model.expert_work / model.compute[gpu]
            add([(i, c * dispatch) for i, c in zip(here, coefficients)] + [(e * n, -1)], -np.inf,
                -constant * dispatch - model.gate[gpu])
            add([(i, c * combine + w) for i, c, w in zip(here, coefficients, work)] + [(e * n + 1, -1)], -np.inf,
                -constant * combine)
    goal = np.zeros(size)
    goal[-2:] = 1
    solved = milp(goal, constraints=LinearConstraint(np.array(rows), low, high),
                  integrality=np.hstack([np.ones(e * n), [0, 0]]),
                  bounds=Bounds(np.zeros(size), np.hstack([np.ones(e * n), [np.inf, np.inf]])),
                  options={"mip_rel_gap": 1e-9, "time_limit": 60})
    assert solved.status == 0, solved.message
    return solved.fun + model.aggregate.max()


def check_plan(checks, models, rows, plan, policy, slots, instance):
    """The plan keeps to the memory, and its layer times are what the formula says."""
    placements = placements_of(plan, 0)
    for layer, model in enumerate(models):
        counts = np.bincount(placements[layer], minlength=model.num_gpus)
        checks.expect((counts <= slots).all(), f"{policy} puts {counts.max()} experts where {slots} fit", instance)
        checks.expect_close(rows[policy]["layers_us"][layer], exclusive_us(model, placements[layer:layer + 1])[0],
                            f"layer time of {policy}, layer {layer}", instance)
    busy = sum((model.gate + model.experts_us(placements[layer:layer + 1])[0] + model.aggregate).mean()
               for layer, model in enumerate(models))
    checks.expect_close(rows[policy]["utilisation"], busy / sum(rows[policy]["layers_us"]), f"utilisation of {policy}",
                        instance)


def check_one_expert_per_gpu(planner, checks, random, num_instances):
    num_layers, missed = 10, []
    for index in range(num_instances):
        n = [2, 3, 4, 6, 8, 12][index % 6]
        cluster = random_cluster(random, n, memory_gb=num_layers)
        traffic = random_traffic(random, "a", num_gpus=n, num_experts=n, top_k=1 + index % min(n, 3),
                                 num_layers=num_layers)
        models = [LayerModel(traffic, layer, cluster) for layer in range(num_layers)]
        instance = f"instance {index}, {n} GPUs, one expert each"
        for policy in POLICIES:
            rows, plan = planner.place(cluster, [traffic], placement=policy)
            check_plan(checks, models, rows, plan, policy, 1, instance)
            for layer, model in enumerate(models):
                best, have = one_expert_per_gpu_us(model) if policy == "auto" else 0, rows[policy]["layers_us"][layer]
                if policy != "auto":
                    continue
                missed.append(have / best)
                checks.expect_close(have, best, f"optimum of layer {layer}",
                                    f"{instance}: {cluster} {traffic | {'layers': [traffic['layers'][layer]]}}")
    print(f"  auto, one expert per GPU, {len(missed)} layers: mean {np.mean(missed):.6f}, max {max(missed):.6f} "
          "of the optimum")


def check_several_experts_per_gpu(planner, checks, random, num_instances):
    num_layers, ratios = 4, []
    for index in range(num_instances):
        n, experts = [(2, 6), (3, 6), (3, 8), (4, 8)][index % 4]
        slots = -(-experts // n) + index % 2
        cluster = random_cluster(random, n, memory_gb=slots * num_layers)
        traffic = random_traffic(random, "a", num_gpus=n, num_experts=experts, top_k=1 + index % 3,
                                 num_layers=num_layers)
        models = [LayerModel(traffic, layer, cluster) for layer in range(num_layers)]
        instance = f"instance {index}, {n} GPUs, {experts} experts, {slots} slots"
        rows, plan = planner.place(cluster, [traffic])
        check_plan(checks, models, rows, plan, "auto", slots, instance)
        placements = all_placements(n, experts, slots)
        for layer, model in enumerate(models):
            best = several_experts_per_gpu_us(model, slots)
            checks.expect_close(best, exclusive_us(model, placements).min(), "the program and all placements",
                                instance, 1e-6)
            ratios.append(rows["auto"]["layers_us"][layer] / best)
            checks.expect(ratios[-1] >= 1 - 1e-6, f"auto is shorter than possible in layer {layer}", instance)
    print(f"  auto, several experts per GPU, {len(ratios)} layers: mean {np.mean(ratios):.6f}, max {max(ratios):.6f} "
          "of the optimum")
    checks.expect(np.mean(ratios) <= 1.01, f"auto's mean is {np.mean(ratios)} of the optimum; 1.01 is allowed",
                  "all of the seed")


def run(planner, checks, random):
    check_one_expert_per_gpu(planner, checks, random, 24)
    check_several_experts_per_gpu(planner, checks, random, 24)
