#ifndef TESSERA_TESTS_OPS_EXPERTS_ROUTING_REFERENCE_H_
#define TESSERA_TESTS_OPS_EXPERTS_ROUTING_REFERENCE_H_

#include <algorithm>
#include <numeric>

#include "tests/contract/op_case.h"

// Routing by its definition: every token sorts its experts, and takes a place with each of the
// first k while there is one.

namespace tessera::testing {

template <class R>
struct RoutedTokens {
  std::vector<std::vector<int64_t>> experts;  // of each token, in order
  std::vector<std::vector<R>> weights;        // 0 where dropped
  std::vector<double> load;
  R balance_loss = 0, z_loss = 0;
};

template <class R>
RoutedTokens<R> RouteByDefinition(const Array<R>& logits, int64_t E, const RoutingOptions& o) {
  using std::exp;
  using std::log;
  const int64_t tokens = logits.shape.elements() / E, k = o.top_k;
  const int64_t capacity =
      o.capacity_factor ? ExpertCapacity(*o.capacity_factor, tokens, k, E) : tokens;
  RoutedTokens<R> r;
  std::vector<int64_t> taken(static_cast<size_t>(E));
  std::vector<R> mean(static_cast<size_t>(E), R(0.0));
  r.load.assign(static_cast<size_t>(E), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const auto l = [&](int64_t e) { return logits[t * E + e]; };
    std::vector<int64_t> order(static_cast<size_t>(E));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return l(a) > l(b); });
    R all = 0, chosen = 0;
    for (int64_t e = 0; e < E; ++e) all = all + exp(l(e));
    order.resize(static_cast<size_t>(k));
    for (const int64_t e : order) chosen = chosen + exp(l(e));
    std::vector<R> weights;
    for (const int64_t e : order) {
      const size_t at = static_cast<size_t>(e);
      const R whole = o.softmax == RouterSoftmax::kAll ? all : chosen;
      weights.push_back(taken[at]++ < capacity ? exp(l(e)) / whole * o.scale : R(0.0));
      r.load[at] += 1.0 / static_cast<double>(tokens * k);
    }
    const double n = static_cast<double>(tokens);
    for (int64_t e = 0; e < E; ++e) mean[static_cast<size_t>(e)] += exp(l(e)) / all / n;
    r.z_loss += log(all) * log(all) / n;
    r.experts.push_back(order);
    r.weights.push_back(weights);
  }
  for (size_t e = 0; e < mean.size(); ++e)
    r.balance_loss += static_cast<double>(E) * r.load[e] * mean[e];
  return r;
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_OPS_EXPERTS_ROUTING_REFERENCE_H_
