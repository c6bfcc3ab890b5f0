"""Two models on the same GPUs, against scipy and against all placements.

Homogeneous GPUs: the paper's pairing minimises the largest sum of what a pair sends or receives; scipy's assignment
says how small it can be. Small clusters of any kind: the colocated layer time of every pair of placements.
"""
import numpy as np

from layer_model import LayerModel, all_placements, colocated_us, placements_of
from placement_oracle import bottleneck_assignment
from planner import random_cluster, random_traffic

POLICIES = ["auto", "contiguous", "round-robin", "rga", "paper", "lina", "rec"]


def wire_loads(model):
    """What expert i's GPU sends and receives when it is also the source of row i, as in the paper: [expert] each."""
    local = np.diag(model.pairs)
    return ((model.pairs.sum(axis=1) - local) * model.dispatch_bytes,
            (model.pairs.sum(axis=0) - local) * model.dispatch_bytes)


def check_homogeneous_pairing(planner, checks, random, num_instances):
    num_layers = 10
    for index in range(num_instances):
        n = int(random.integers(2, 13))
        cluster = random_cluster(random, n, is_homogeneous=True)
        models = [random_traffic(random, name, num_gpus=n, num_experts=n, top_k=1, num_layers=num_layers)
                  for name in "ab"]
        _, plan = planner.place(cluster, models, placement="paper")
        placed = [placements_of(plan, index) for index in (0, 1)]
        for layer in range(num_layers):
            a, b = (wire_loads(LayerModel(model, layer, cluster)) for model in models)
            weights = np.maximum(a[0][:, None] + b[0][None, :], a[1][:, None] + b[1][None, :])
            best = bottleneck_assignment(weights, np.full(weights.shape, True))
            instance = f"homogeneous instance {index}, {n} GPUs, layer {layer}"
            at = [np.argsort(placements[layer]) for placements in placed]  # expert on each GPU
            is_pairing = all(sorted(placements[layer]) == list(range(n)) for placements in placed)
            checks.expect(is_pairing, "the paper's answer has one expert of each model on a GPU", instance)
            if is_pairing:
                checks.expect_close(weights[at[0], at[1]].max(), best, "largest pair of the paper's answer", instance)


def check_all_placements(planner, checks, random, shapes, *, is_one_each):
    """`shapes` are (GPUs, experts of a, experts of b). With `is_one_each` the memory has room for one expert of each
    model on a GPU and the oracle tries all pairs of bijections; without it memory is not limited."""
    num_layers, ratios = 3, []
    for index, (n, *num_experts) in enumerate(shapes):
        cluster = random_cluster(random, n, is_homogeneous=index % 8 < 2,
                                 memory_gb=2 * num_layers if is_one_each else 0)
        traffic = [random_traffic(random, name, num_gpus=n, num_experts=experts, top_k=1 + index % 2,
                                  num_layers=num_layers) for name, experts in zip("ab", num_experts)]
        models = [[LayerModel(model, layer, cluster) for layer in range(num_layers)] for model in traffic]
        instance = f"instance {index}, {n} GPUs, {num_experts} experts, one each: {is_one_each}"
        candidates = [all_placements(n, experts, 1 if is_one_each else experts) for experts in num_experts]
        best = [colocated_us(models[0][layer], models[1][layer], candidates[0][:, None], candidates[1][None]).min()
                for layer in range(num_layers)]
        for policy in POLICIES:
            rows, plan = planner.place(cluster, traffic, placement=policy)
            placed = [placements_of(plan, index) for index in (0, 1)]
            for layer in range(num_layers):
                time = colocated_us(models[0][layer], models[1][layer], placed[0][layer], placed[1][layer])
                checks.expect_close(rows[policy]["layers_us"][layer], time, f"layer time of {policy}", instance)
                checks.expect(time >= best[layer] * (1 - 1e-9), f"{policy} is shorter than possible", instance)
                if policy == "auto":
                    ratios.append(time / best[layer])
        if not is_one_each:  # where the planner's own brute force reaches
            rows, _ = planner.place(cluster, traffic, options=["--compare"])
            for layer in range(num_layers):
                checks.expect_close(rows["brute-force"]["layers_us"][layer], best[layer], "brute force", instance)
    print(f"  auto, two models, {'one expert each' if is_one_each else 'any placement'}, {len(ratios)} layers: "
          f"mean {np.mean(ratios):.6f}, max {max(ratios):.6f} of the optimum")
    checks.expect(np.mean(ratios) <= 1.001 and max(ratios) <= 1.02,
                  f"auto is {np.mean(ratios)} of the optimum on average, {max(ratios)} at worst; 1.001 and 1.02 are "
                  "allowed", "all of the seed")


def run(planner, checks, random):
    check_homogeneous_pairing(planner, checks, random, 40)
    check_all_placements(planner, checks, random, [(2, 3, 2), (3, 3, 3), (3, 3, 2), (4, 4, 4)] * 6, is_one_each=False)
    check_all_placements(planner, checks, random, [(5, 5, 5), (6, 6, 6)] * 8, is_one_each=True)
