#include "kernels/cuda/cuda_graph.h"

#include <memory>
#include <type_traits>

#include "kernels/cuda/check_cuda.h"

namespace aurora::cuda {
namespace {

struct GraphRelease {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphRelease>;

OwnedGraph record(CudaStream& stream, const std::function<void()>& submit) {
  stream.begin_capture();
  try {
    submit();
  } catch (...) {
    const OwnedGraph unfinished(stream.end_capture());
    cudaGetLastError();  // of the capture that is given up: not the next call's error
    throw;
  }
  OwnedGraph graph(stream.end_capture());
  if (graph == nullptr) check_cuda(cudaGetLastError(), "cudaStreamEndCapture");
  check(graph != nullptr, "a stream's work was recorded as a graph");
  return graph;
}

}  // namespace

CudaGraph::CudaGraph(CudaStream& stream, const std::function<void()>& submit) : stream_(&stream) {
  const OwnedGraph graph = record(stream, submit);
  generation_ = Buffer::generation();
  scratch_ = stream.scratch_address();
  check_cuda(cudaGraphInstantiate(&executable_, graph.get(), 0), "cudaGraphInstantiate");
}

CudaGraph::~CudaGraph() { cudaGraphExecDestroy(executable_); }

bool CudaGraph::is_current() const {
  return generation_ == Buffer::generation() && scratch_ == stream_->scratch_address();
}

void CudaGraph::launch(Stream& stream) {
  check(&cuda_stream(stream) == stream_, "a graph is launched on the stream where it was recorded");
  check_cuda(cudaGraphLaunch(executable_, stream_->handle()), "cudaGraphLaunch");
}

}  // namespace aurora::cuda
