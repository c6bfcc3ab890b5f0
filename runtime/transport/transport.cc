#include "runtime/transport/transport.h"

#include "kernels/error.h"

namespace aurora {

Ticket Transport::post_on_device(std::span<const Message>, const StreamOrder&) {
  throw Error(ErrorKind::kUnsupported,
              "transport " + std::string(name()) + " does not move device memory; use --transport nccl");
}

}  // namespace aurora
