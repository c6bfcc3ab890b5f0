"""The times of one layer as the paper states them (Li et al., arXiv 2410.17043, sections 4 to 6), in numpy, for many
placements at once: a placement is a row of GPU indices, one for each expert, in the last dimension of an array. Traffic
has no samples, so every copy of a token travels by itself; ports are the only network.
"""
import itertools

import numpy as np

from planner import BYTES_PER_US_OF_GBPS


class LayerModel:
    """One layer of one model on one cluster."""

    def __init__(self, traffic, layer, cluster):
        self.pairs = np.array(traffic["layers"][layer]["dispatch"], dtype=float)  # [source GPU, expert]
        self.num_gpus, self.num_experts = self.pairs.shape
        self.compute = np.array([gpu["compute"] for gpu in cluster])
        self.port = np.array([gpu["port_gbps"] for gpu in cluster]) * BYTES_PER_US_OF_GBPS
        tokens = self.pairs.sum(axis=1) / traffic["top_k"]
        self.gate = tokens * (traffic["attention_us"] + traffic["gate_us"]) / self.compute
        self.aggregate = tokens * traffic["aggregate_us"] / self.compute
        copies = self.pairs.sum(axis=0)
        self.expert_work = copies * traffic["expert_us_per_token"] + (copies > 0) * traffic["expert_us_per_hit"]
        self.dispatch_bytes = traffic["dispatch_bytes_per_token"]
        self.combine_bytes = traffic["combine_bytes_per_token"]

    def experts_us(self, placements):
        """[..., GPU]"""
        hosts = placements[..., None] == np.arange(self.num_gpus)
        return np.einsum("...eg,e->...g", hosts, self.expert_work) / self.compute

    def rows(self, placements):
        """Copies that each GPU sends and receives in the dispatch, [..., GPU] each. The combine is the reverse."""
        hosts = (placements[..., None] == np.arange(self.num_gpus)).astype(float)
        local = np.einsum("...eg,ge->...g", hosts, self.pairs)
        return (self.pairs.sum(axis=1) - local,
                np.einsum("...eg,e->...g", hosts, self.pairs.sum(axis=0)) - local)


def exclusive_us(model, placements):
    """max(G_i + N_i) + max(F_j + C_j) + max A_k, [...]."""
    sent, received = model.rows(placements)
    busiest = np.maximum(sent, received)
    before = (model.gate + busiest * model.dispatch_bytes / model.port).max(axis=-1)
    after = (model.experts_us(placements) + busiest * model.combine_bytes / model.port).max(axis=-1)
    return before + after + model.aggregate.max()


def colocated_us(a, b, placements_a, placements_b):
    """The paper's table for two models that take turns. The two arrays of placements are combined as numpy broadcasts
    them."""
    sent, received = {}, {}
    for name, model, placements in (("a", a, placements_a), ("b", b, placements_b)):
        rows_sent, rows_received = model.rows(placements)
        sent["N" + name] = rows_sent * model.dispatch_bytes / model.port
        received["N" + name] = rows_received * model.dispatch_bytes / model.port
        sent["C" + name] = rows_received * model.combine_bytes / model.port
        received["C" + name] = rows_sent * model.combine_bytes / model.port

    def on_the_wire(*exchanges):
        return np.maximum(sum(sent[x] for x in exchanges), sum(received[x] for x in exchanges)).max(axis=-1)

    gate_a, gate_b = a.gate.max(), b.gate.max()
    experts_a, experts_b = a.experts_us(placements_a).max(axis=-1), b.experts_us(placements_b).max(axis=-1)
    dispatched_a = on_the_wire("Na")
    experts_a_end = np.maximum(gate_b, dispatched_a) + experts_a
    dispatched_b = np.maximum(gate_b + on_the_wire("Nb"), on_the_wire("Na", "Nb"))
    experts_b_end = np.maximum(experts_a_end, dispatched_b) + experts_b
    combined_a = np.maximum(experts_a_end + on_the_wire("Ca"), on_the_wire("Na", "Nb", "Ca"))
    aggregated_a = np.maximum(experts_b_end, combined_a) + a.aggregate.max()
    combined_b = np.maximum(experts_b_end + on_the_wire("Cb"), on_the_wire("Na", "Nb", "Ca", "Cb"))
    aggregated_b = np.maximum(aggregated_a, combined_b) + b.aggregate.max()
    return aggregated_b + gate_a


def all_placements(num_gpus, num_experts, slots):
    """Every placement with at most `slots` experts on a GPU, [placement, expert]."""
    placements = np.array(list(itertools.product(range(num_gpus), repeat=num_experts)))
    counts = (placements[:, :, None] == np.arange(num_gpus)).sum(axis=1)
    return placements[(counts <= slots).all(axis=1)]


def placements_of(plan, model_index):
    """[layer, expert] of a plan file without replicas."""
    layers = plan["models"][model_index]["layers"]
    assert all(len(replicas) == 1 for layer in layers for replicas in layer["experts"])
    return np.array([[replicas[0]["gpu"] for replicas in layer["experts"]] for layer in layers])
