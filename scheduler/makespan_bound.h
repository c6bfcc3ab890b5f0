// Lower bounds on the time of one exchange behind a non-blocking switch.
//
// A port moves its bytes no faster than its bandwidth, so no order beats
//     max over GPUs of max(row sum, column sum) / B,
// and with equal ports some order meets it (Birkhoff, Koenig). When every GPU sends to one peer at a time and
// receives from one, a transfer runs at the slower of its two ports, and the bound rises to
//     max over GPUs of (sum over peers of bytes / min(B, B of the peer)).
// The second is not a bound for orders in which a fast port serves several slow ones at once.
#pragma once

#include <span>
#include <vector>

#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/units.h"

namespace aurora {

/// Bandwidth of each port, bytes per microsecond: `options.ports`, or `default_port` for all. Throws
/// std::invalid_argument naming the port unless there are `num_gpus` of them, all positive and finite.
std::vector<double> port_bandwidths(const OrderOptions& options, int num_gpus);

/// Whether all ports have the same bandwidth.
bool has_equal_ports(std::span<const double> ports);

/// Largest row or column sum: the bound in bytes when all ports are equal. Exact.
Bytes makespan_bound_bytes(const TrafficMatrix& traffic);

/// max(row_i / B_i, column_i / B_i) in microseconds. O(n^2).
double makespan_bound_us(const TrafficMatrix& traffic, const OrderOptions& options);

/// The bound for one peer at a time, in microseconds. O(n^2).
double one_to_one_bound_us(const TrafficMatrix& traffic, const OrderOptions& options);

}  // namespace aurora
