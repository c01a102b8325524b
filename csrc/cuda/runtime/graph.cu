// Recorded call sequences: the compute stream is captured, instantiated as a CUDA graph, and launched as one. Memory
// allocated during recording stays reserved for the graphs that share it, so that every launch finds the addresses it
// was recorded with.
#include <map>
#include <mutex>

#include "common.cuh"
#include "memory.h"

using namespace rcm;

namespace {

struct Memory {
  FreeBlocks* free_blocks;
  int graphs = 0;
};

struct Recorder {
  std::mutex lock;
  std::map<int64_t, Memory> memories;
  std::map<int64_t, std::pair<cudaGraphExec_t, int64_t>> graphs;  // executable, and the memory it uses
  int64_t next = 1, now = 0;                                      // `now`: memory of the recording in progress
};
Recorder& recorder() {
  static Recorder* r = new Recorder;  // never destroyed: calls may still arrive at exit
  return *r;
}

Memory& memory_of(Recorder& r, int64_t id) {
  const auto found = r.memories.find(id);
  if (found == r.memories.end()) fail(RCM_E_ARG, "memory: %lld is not from rcm_graph_memory", (long long)id);
  return found->second;
}

}  // namespace

rcm_status rcm_graph_memory(int64_t* out) {
  return guard("graph_memory", [&] {
    need(out, "out");
    gpu();
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    *out = r.next++;
    r.memories[*out] = Memory{graph_memory_create()};
  });
}

rcm_status rcm_graph_memory_free(int64_t memory) {
  return guard("graph_memory_free", [&] {
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    Memory& m = memory_of(r, memory);
    if (m.graphs > 0 || r.now == memory)
      fail(RCM_E_ARG, "memory: %d graphs still use it", m.graphs + (r.now == memory));
    graph_memory_destroy(m.free_blocks);
    r.memories.erase(memory);
  });
}

rcm_status rcm_graph_begin(int64_t memory) {
  return guard("graph_begin", [&] {
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    Memory& m = memory_of(r, memory);
    if (r.now != 0) fail(RCM_E_ARG, "a recording is in progress");
    cuda_check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    graph_memory_use(m.free_blocks);
    recording() = true;
    r.now = memory;
  });
}

rcm_status rcm_graph_end(int64_t* out) {
  return guard("graph_end", [&] {
    need(out, "out");
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    if (r.now == 0) fail(RCM_E_ARG, "no recording is in progress");
    const int64_t memory = r.now;
    r.now = 0;
    recording() = false;
    graph_memory_use(nullptr);
    cudaGraph_t graph = nullptr;
    cuda_check(cudaStreamEndCapture(stream(), &graph), "recording");
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    cuda_check(error, "cudaGraphInstantiate");
    cuda_check(cudaGraphUpload(exec, stream()), "cudaGraphUpload");
    *out = r.next++;
    r.graphs[*out] = {exec, memory};
    ++memory_of(r, memory).graphs;
  });
}

rcm_status rcm_graph_launch(int64_t graph) {
  return op_call("graph_launch", [&] {
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    const auto found = r.graphs.find(graph);
    if (found == r.graphs.end()) fail(RCM_E_ARG, "graph: %lld was not recorded", (long long)graph);
    cuda_check(cudaGraphLaunch(found->second.first, stream()), "cudaGraphLaunch");
  });
}

rcm_status rcm_graph_free(int64_t graph) {
  return guard("graph_free", [&] {
    Recorder& r = recorder();
    std::lock_guard<std::mutex> hold(r.lock);
    const auto found = r.graphs.find(graph);
    if (found == r.graphs.end()) fail(RCM_E_ARG, "graph: %lld was not recorded", (long long)graph);
    cuda_check(cudaStreamSynchronize(stream()), "waiting for queued work");
    cuda_check(cudaGraphExecDestroy(found->second.first), "cudaGraphExecDestroy");
    --memory_of(r, found->second.second).graphs;
    r.graphs.erase(found);
  });
}
