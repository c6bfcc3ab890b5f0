#include "runtime/agreement.h"

#include <optional>
#include <string>

#include "kernels/error.h"
#include "runtime/engine_protocol.h"
#include "runtime/transport/wait.h"

namespace aurora {
namespace {

struct Failure {
  ErrorKind kind = ErrorKind::kInternal;
  std::string text;
};

std::optional<Failure> attempt(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    return Failure{error.kind(), error.what()};
  } catch (const std::bad_alloc&) {
    return Failure{ErrorKind::kOutOfMemory, "out of host memory"};
  } catch (const std::exception& error) {
    return Failure{ErrorKind::kInvalidArgument, error.what()};
  }
}

}  // namespace

void agree(Transport& transport, std::chrono::milliseconds timeout, std::string_view what,
           const std::function<void()>& work) {
  const std::optional<Failure> mine = attempt(work);
  ByteWriter writer;
  writer.write(mine.has_value());
  if (mine) {
    writer.write(mine->kind);
    writer.write(mine->text);
  }
  const auto all =
      all_gather(transport, writer.bytes(), kAgreeTag, std::chrono::steady_clock::now() + timeout, what);
  for (int rank = 0; rank < transport.num_ranks(); ++rank) {
    ByteReader reader(all[static_cast<std::size_t>(rank)]);
    if (!reader.read<bool>()) continue;
    const auto kind = reader.read<ErrorKind>();
    const std::string text = "rank " + std::to_string(rank) + ": " + reader.read_string();
    throw Error(rank == transport.rank() ? kind : ErrorKind::kAborted, text);
  }
}

}  // namespace aurora
