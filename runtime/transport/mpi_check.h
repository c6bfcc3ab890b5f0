// Turns the result of an MPI call into an Error. Included by the mpi_*.cc files only, since it brings in
// mpi.h.
#pragma once

// The C++ bindings of old MPI versions do not compile without warnings, and nothing here uses them.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <source_location>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace aurora {

/// MPI's own text for `code`.
inline std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "MPI error " + std::to_string(code);
  return std::string(text, static_cast<std::size_t>(length));
}

/// Throws kDevice with MPI's text when `code` is not MPI_SUCCESS. `what` names the call.
inline void check_mpi(int code, std::string_view what,
                      std::source_location where = std::source_location::current()) {
  if (code == MPI_SUCCESS) return;
  throw Error(ErrorKind::kDevice, std::string(what) + " failed: " + mpi_error_text(code), where);
}

}  // namespace aurora
