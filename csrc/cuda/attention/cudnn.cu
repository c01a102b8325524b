// Attention forward and backward through cuDNN's graph interface: a graph of matmuls, reductions and element-wise
// operations that cuDNN recognises as attention and runs as one kernel. Plans are built once per shape and cached.
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "attention.cuh"
#include "cuda/vendor/cudnn.h"

namespace rcm {
namespace {

using dnn::Descriptor;

struct Refused {};  // cuDNN does not support this graph

const dnn::Library& lib() { return dnn::library(); }
void require(int32_t status) {
  if (status != 0) throw Refused{};
}

// A descriptor, destroyed with its owner.
class Handle {
 public:
  explicit Handle(int32_t type) { require(lib().create(type, &descriptor_)); }
  ~Handle() {
    if (descriptor_) lib().destroy(descriptor_);
  }
  Handle(Handle&& o) noexcept : descriptor_(o.descriptor_) { o.descriptor_ = nullptr; }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  Descriptor get() const { return descriptor_; }
  template <class V>
  Handle& set(int32_t attribute, int32_t type, const V& value) {
    require(lib().set(descriptor_, attribute, type, 1, &value));
    return *this;
  }
  template <class V>
  Handle& set_many(int32_t attribute, int32_t type, const V* values, size_t count) {
    require(lib().set(descriptor_, attribute, type, (int64_t)count, values));
    return *this;
  }
  Handle& link(int32_t attribute, Descriptor other) { return set(attribute, dnn::kDescriptor, other); }
  Handle& done() {
    require(lib().finalize(descriptor_));
    return *this;
  }

 private:
  Descriptor descriptor_ = nullptr;
};

struct Quad {
  int64_t v[4];
};

// Ids of the memory that a plan reads or writes.
enum Name : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kScale,
  kOBar,
  kQBar,
  kKBar,
  kVBar,
  kDelta,
  kQSum,
  kOne,
  kFirstVirtual
};

class Graph {
 public:
  Graph(const AttentionShape& s)
      : b_(s.B), h_(s.H), lq_(s.Lq), lk_(s.Lk), io_(s.dtype == RCM_BF16 ? dnn::kBfloat16 : dnn::kHalf) {}

  int32_t io() const { return io_; }
  Quad scores() const { return {{b_, h_, lq_, lk_}}; }
  Quad scores_steps() const { return {{h_ * lq_ * lk_, lq_ * lk_, lk_, 1}}; }
  Quad rows() const { return {{b_, h_, lq_, 1}}; }
  Quad rows_steps() const { return {{h_ * lq_, lq_, 1, 1}}; }

  Descriptor tensor(int64_t id, int32_t type, const Quad& dims, const Quad& steps, bool is_virtual,
                    bool by_value = false) {
    Handle t(dnn::kTensor);
    const int64_t alignment = by_value ? 4 : 16;
    t.set(dnn::kTensorType, dnn::kDataType, type)
        .set_many(dnn::kTensorDims, dnn::kInt64, dims.v, 4)
        .set_many(dnn::kTensorStrides, dnn::kInt64, steps.v, 4);
    t.set(dnn::kTensorId, dnn::kInt64, id).set(dnn::kTensorAlignment, dnn::kInt64, alignment);
    t.set(dnn::kTensorVirtual, dnn::kBoolean, is_virtual).set(dnn::kTensorByValue, dnn::kBoolean, by_value).done();
    return keep(std::move(t));
  }
  Descriptor inner(int32_t type, const Quad& dims, const Quad& steps) {
    return tensor(next_++, type, dims, steps, true);
  }
  Descriptor scalar(int64_t id) { return tensor(id, dnn::kFloat, {{1, 1, 1, 1}}, {{1, 1, 1, 1}}, false, true); }
  // [B, H, tokens, width] of memory with strides (batch, token, head); `transposed` swaps the last two axes.
  Descriptor outer(int64_t id, int64_t tokens, int64_t width, const int64_t (&step)[3], bool transposed = false) {
    return transposed ? tensor(id, io_, {{b_, h_, width, tokens}}, {{step[0], step[2], 1, step[1]}}, false)
                      : tensor(id, io_, {{b_, h_, tokens, width}}, {{step[0], step[2], step[1], 1}}, false);
  }

  void matmul(Descriptor a, Descriptor b, Descriptor c) {
    Handle how(dnn::kMatmul);
    how.set(dnn::kMatmulPrecision, dnn::kDataType, (int32_t)dnn::kFloat).done();
    Handle op(dnn::kOpMatmul);
    op.link(dnn::kMatmulA, a)
        .link(dnn::kMatmulB, b)
        .link(dnn::kMatmulC, c)
        .link(dnn::kMatmulDesc, keep(std::move(how)))
        .done();
    add(std::move(op));
  }
  void pointwise(int32_t mode, Descriptor x, Descriptor b, Descriptor y) {
    Handle how(dnn::kPointwise);
    how.set(dnn::kPointwiseModeOf, dnn::kPointwiseMode, mode)
        .set(dnn::kPointwisePrecision, dnn::kDataType, (int32_t)dnn::kFloat)
        .done();
    Handle op(dnn::kOpPointwise);
    op.link(dnn::kPointwiseDesc, keep(std::move(how))).link(dnn::kPointwiseX, x);
    if (b) op.link(dnn::kPointwiseB, b);
    op.link(dnn::kPointwiseY, y).done();
    add(std::move(op));
  }
  void reduce(int32_t by, Descriptor x, Descriptor y) {
    Handle how(dnn::kReduction);
    how.set(dnn::kReductionOperatorOf, dnn::kReductionOperator, by)
        .set(dnn::kReductionPrecision, dnn::kDataType, (int32_t)dnn::kFloat)
        .done();
    Handle op(dnn::kOpReduction);
    op.link(dnn::kReductionX, x).link(dnn::kReductionY, y).link(dnn::kReductionDesc, keep(std::move(how))).done();
    add(std::move(op));
  }
  void reshape(Descriptor x, Descriptor y) {
    Handle op(dnn::kOpReshape);
    op.link(dnn::kReshapeX, x).link(dnn::kReshapeY, y).done();
    add(std::move(op));
  }
  Descriptor finish() {
    Handle graph(dnn::kOpGraph);
    const dnn::Handle library = lib().handle;
    graph.set_many(dnn::kGraphOps, dnn::kDescriptor, ops_.data(), ops_.size())
        .set(dnn::kGraphHandle, dnn::kHandleType, library)
        .done();
    return keep(std::move(graph));
  }

 private:
  Descriptor keep(Handle&& d) {
    kept_.push_back(std::move(d));
    return kept_.back().get();
  }
  void add(Handle&& op) { ops_.push_back(keep(std::move(op))); }

  std::vector<Handle> kept_;
  std::vector<Descriptor> ops_;
  int64_t b_, h_, lq_, lk_, next_ = kFirstVirtual;
  int32_t io_;
};

// S = scale q k^T, P = exp(S - max) / sum, stats = max + log sum, o = P v.
void forward_graph(Graph& g, const AttentionShape& s) {
  const auto full = [&](int32_t type) { return g.inner(type, g.scores(), g.scores_steps()); };
  const auto row = [&] { return g.inner(dnn::kFloat, g.rows(), g.rows_steps()); };
  const Descriptor raw = full(dnn::kFloat), scaled = full(dnn::kFloat), top = row(), below = full(dnn::kFloat),
                   weight = full(dnn::kFloat), sum = row(), log_sum = row(), p = full(g.io());
  g.matmul(g.outer(kQ, s.Lq, s.K, s.q), g.outer(kK, s.Lk, s.K, s.k, true), raw);
  g.pointwise(dnn::kMul, raw, g.scalar(kScale), scaled);
  g.reduce(dnn::kMax, scaled, top);
  g.pointwise(dnn::kSub, scaled, top, below);
  g.pointwise(dnn::kExp, below, nullptr, weight);
  g.reduce(dnn::kSum, weight, sum);
  g.pointwise(dnn::kLog, sum, nullptr, log_sum);
  g.pointwise(dnn::kAdd, top, log_sum, g.tensor(kStats, dnn::kFloat, g.rows(), g.rows_steps(), false));
  g.pointwise(dnn::kDiv, weight, sum, p);
  g.matmul(p, g.outer(kV, s.Lk, s.Kv, s.v), g.outer(kO, s.Lq, s.Kv, s.o));
}

// delta = rowsum(o_bar o), P = exp(scale q k^T - stats), dS = scale P (o_bar v^T - delta);
// v_bar = P^T o_bar, k_bar = dS^T q, q_bar = dS k.
void backward_graph(Graph& g, const AttentionShape& s) {
  const auto full = [&] { return g.inner(dnn::kFloat, g.scores(), g.scores_steps()); };
  const auto transposed = [&] {
    const Quad dims{{s.B, s.H, s.Lk, s.Lq}}, steps{{s.H * s.Lq * s.Lk, s.Lq * s.Lk, 1, s.Lk}};
    return g.inner(g.io(), dims, steps);
  };
  const Descriptor q = g.outer(kQ, s.Lq, s.K, s.q), k = g.outer(kK, s.Lk, s.K, s.k, true),
                   v = g.outer(kV, s.Lk, s.Kv, s.v, true);
  const Descriptor o_bar = g.outer(kOBar, s.Lq, s.Kv, s.o), scale = g.scalar(kScale);
  const Descriptor squares =
      g.inner(dnn::kFloat, {{s.B, s.H, s.Lq, s.Kv}}, {{s.H * s.Lq * s.Kv, s.Lq * s.Kv, s.H * s.Kv, 1}});
  const Descriptor dots = g.inner(dnn::kFloat, g.rows(), g.rows_steps()),
                   delta = g.tensor(kDelta, dnn::kFloat, g.rows(), g.rows_steps(), false);
  g.pointwise(dnn::kMul, o_bar, g.outer(kO, s.Lq, s.Kv, s.o), squares);
  g.reduce(dnn::kSum, squares, dots);
  g.pointwise(dnn::kMul, dots, g.scalar(kOne), delta);

  const Descriptor raw = full(), scaled = full(), below = full(), p = full(), p_transposed = transposed();
  g.matmul(q, k, raw);
  g.pointwise(dnn::kMul, raw, scale, scaled);
  g.pointwise(dnn::kSub, scaled, g.tensor(kStats, dnn::kFloat, g.rows(), g.rows_steps(), false), below);
  g.pointwise(dnn::kExp, below, nullptr, p);
  g.reshape(p, p_transposed);
  g.matmul(p_transposed, o_bar, g.outer(kVBar, s.Lk, s.Kv, s.v));

  const Descriptor dp = full(), centred = full(), weighted = full(), ds = full(), ds_transposed = transposed();
  g.matmul(o_bar, v, dp);
  g.pointwise(dnn::kSub, dp, delta, centred);
  g.pointwise(dnn::kMul, centred, p, weighted);
  g.pointwise(dnn::kMul, weighted, scale, ds);
  g.reshape(ds, ds_transposed);
  g.matmul(ds_transposed, q, g.outer(kKBar, s.Lk, s.K, s.k));

  const Descriptor k_plain = g.inner(g.io(), {{s.B, s.H, s.Lk, s.K}}, {{s.k[0], s.k[2], s.k[1], 1}});
  const Descriptor q_sum =
      g.tensor(kQSum, dnn::kFloat, {{s.B, s.H, s.Lq, s.K}}, {{s.H * s.Lq * s.K, s.Lq * s.K, s.K, 1}}, false);
  g.reshape(k, k_plain);
  g.matmul(ds, k_plain, q_sum);
  g.pointwise(dnn::kIdentity, q_sum, nullptr, g.outer(kQBar, s.Lq, s.K, s.q));
}

struct Plan {
  std::unique_ptr<Graph> graph;
  std::vector<Handle> parts;  // the plan is the last of them
  int64_t workspace = 0;
  bool usable = false;
};

// The first engine of cuDNN's own ranking that can be built.
Plan make_plan(const AttentionShape& s, bool backward) {
  Plan plan;
  try {
    plan.graph = std::make_unique<Graph>(s);
    backward ? backward_graph(*plan.graph, s) : forward_graph(*plan.graph, s);
    const Descriptor graph = plan.graph->finish();
    Handle heuristic(dnn::kHeuristic);
    heuristic.link(dnn::kHeuristicGraph, graph)
        .set(dnn::kHeuristicModeOf, dnn::kHeuristicMode, dnn::kHeuristicA)
        .done();
    std::vector<Handle> configs;
    std::vector<Descriptor> raw;
    for (int i = 0; i < 8; ++i) {
      configs.emplace_back(dnn::kEngineConfig);
      raw.push_back(configs.back().get());
    }
    int64_t found = 0;
    require(
        lib().get(heuristic.get(), dnn::kHeuristicResults, dnn::kDescriptor, (int64_t)raw.size(), &found, raw.data()));
    for (int64_t i = 0; i < found && i < (int64_t)raw.size() && !plan.usable; ++i) {
      try {
        const dnn::Handle library = lib().handle;
        Handle built(dnn::kPlan);
        built.set(dnn::kPlanHandle, dnn::kHandleType, library).link(dnn::kPlanConfig, raw[(size_t)i]).done();
        int64_t count = 0;
        require(lib().get(built.get(), dnn::kPlanWorkspace, dnn::kInt64, 1, &count, &plan.workspace));
        plan.parts.push_back(std::move(configs[(size_t)i]));
        plan.parts.push_back(std::move(built));
        plan.usable = true;
      } catch (const Refused&) {
      }
    }
  } catch (const Refused&) {
  }
  return plan;
}

struct Plans {
  std::mutex lock;
  std::map<std::vector<int64_t>, Plan> known;
};
Plans& plans() {
  static Plans* p = new Plans;
  return *p;
}

bool takes(const AttentionShape& s) {
  const bool types = s.dtype == RCM_BF16 || s.dtype == RCM_F16,
             widths = s.K % 8 == 0 && s.Kv % 8 == 0 && s.K <= 128 && s.Kv <= 128;
  if (!types || !widths || s.B < 1 || s.H < 1 || s.Lq < 2 || s.Lk < 2) return false;
  for (const int64_t* steps : {s.q, s.k, s.v, s.o}) {
    for (int i = 0; i < 3; ++i) {
      if (steps[i] % 8 != 0 || steps[i] == 0) return false;
    }
  }
  return true;
}

// Excludes versions that want the sums of q_bar cleared first, that are known to be wrong, or that need a mask over
// keys when those do not fill their tiles. Source: the conditions in NVIDIA's own frontend.
bool backward_works(const AttentionShape& s) {
  const size_t v = lib().version;
  return v >= 90600 && v != 91000 && v != 91001 && (s.Lk % 128 == 0 || v > 91500);
}

struct Bound {
  int64_t name;
  const void* memory;
};

bool run(const AttentionShape& s, bool backward, std::vector<Bound> bound) {
  if (!lib().handle || !takes(s)) return false;
  for (const Bound& b : bound) {
    if (!b.memory || !aligned(b.memory, 16)) return false;
  }
  Plans& cache = plans();
  std::lock_guard<std::mutex> hold(cache.lock);
  std::vector<int64_t> key = {backward, s.B, s.H, s.Lq, s.Lk, s.K, s.Kv, s.dtype};
  for (const int64_t* steps : {s.q, s.k, s.v, s.o}) key.insert(key.end(), steps, steps + 3);
  auto at = cache.known.find(key);
  if (at == cache.known.end()) at = cache.known.emplace(key, make_plan(s, backward)).first;
  const Plan& plan = at->second;
  if (!plan.usable) return false;

  const float scale = (float)s.scale, one = 1;
  const size_t rows = (size_t)(s.B * s.H * s.Lq), sums = backward ? rows * (size_t)s.K : 0;
  Workspace workspace((size_t)plan.workspace), q_sum(sums * 4), delta(backward ? rows * 4 : 0);
  bound.push_back({kScale, &scale});
  if (backward) {
    bound.push_back({kOne, &one});
    bound.push_back({kQSum, q_sum.as<void>()});
    bound.push_back({kDelta, delta.as<void>()});
  }
  std::vector<int64_t> ids;
  std::vector<const void*> memory;
  for (const Bound& b : bound) {
    ids.push_back(b.name);
    memory.push_back(b.memory);
  }
  try {
    require(lib().set_stream(lib().handle, stream()));
    Handle pack(dnn::kVariantPack);
    const void* scratch = workspace.as<void>();
    pack.set_many(dnn::kPackPointers, dnn::kPointer, memory.data(), memory.size())
        .set_many(dnn::kPackIds, dnn::kInt64, ids.data(), ids.size());
    pack.set(dnn::kPackWorkspace, dnn::kPointer, scratch).done();
    require(lib().execute(lib().handle, plan.parts.back().get(), pack.get()));
  } catch (const Refused&) {
    fail(RCM_E_BACKEND, "cuDNN: attention %s failed; RCM_CUDNN=none avoids it", backward ? "backward" : "forward");
  }
  return true;
}

}  // namespace

bool cudnn_forward(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  return run(s, false, {{kQ, q}, {kK, k}, {kV, v}, {kO, o}, {kStats, lse}});
}

bool cudnn_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                    const float* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  // The order of its sums over keys varies from run to run, although its engines do not declare that in their notes.
  if (deterministic() || !lib().handle || !backward_works(s)) return false;
  return run(s, true,
             {{kQ, q},
              {kK, k},
              {kV, v},
              {kO, o},
              {kOBar, o_bar},
              {kQBar, q_bar},
              {kKBar, k_bar},
              {kVBar, v_bar},
              {kStats, lse}});
}

}  // namespace rcm
