#include "scheduler/pipelined_rounds.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace aurora {
namespace {

__extension__ using WideInteger = __int128;

/// The shortest that a round can be: its busiest port.
double round_bound_us(const Round& round, std::span<const double> ports) {
  std::vector<double> sent(ports.size());
  std::vector<double> received(ports.size());
  double longest = 0;
  for (const Transfer& transfer : round.transfers) {
    const auto bytes = static_cast<double>(transfer.bytes);
    const int from = transfer.source.value;
    const int to = transfer.destination.value;
    sent[from] += bytes / ports[from];
    received[to] += bytes / ports[to];
    longest = std::max({longest, sent[from], received[to]});
  }
  return longest;
}

}  // namespace

Bytes share_of(Bytes bytes, Bytes part, Bytes whole) {
  return static_cast<Bytes>(WideInteger{bytes} * part / whole);
}

std::vector<Round> pipelined_rounds(const TransmissionOrder& order, std::span<const double> ports,
                                    double longest_us) {
  std::vector<std::pair<double, Round>> pieces;
  for (const Round& round : order.rounds) {
    const double length_us = round_bound_us(round, ports);
    const auto num_pieces = std::max<Bytes>(1, static_cast<Bytes>(std::ceil(length_us / longest_us)));
    for (Bytes piece = 0; piece < num_pieces; ++piece) {
      Round part;
      for (const Transfer& transfer : round.transfers) {
        const Bytes bytes =
            share_of(transfer.bytes, piece + 1, num_pieces) - share_of(transfer.bytes, piece, num_pieces);
        if (bytes > 0) part.transfers.push_back({transfer.source, transfer.destination, bytes});
      }
      if (!part.transfers.empty()) {
        pieces.emplace_back(length_us / static_cast<double>(num_pieces), std::move(part));
      }
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Round> rounds(pieces.size());
  for (std::size_t index = 0; index < pieces.size(); ++index) {
    const std::size_t place = index % 2 == 0 ? index / 2 : pieces.size() - 1 - index / 2;
    rounds[place] = std::move(pieces[index].second);
  }
  return rounds;
}

}  // namespace aurora
