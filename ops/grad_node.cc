#include "ops/grad_node.h"

#include <algorithm>

namespace tessera {

std::vector<ColumnRange> GradNode::Untouched(const ColumnRange& range) const {
  if (started) return {};
  std::vector<ColumnRange> gaps;
  int64_t at = range.begin;
  const auto gap_until = [&](int64_t end) {
    if (at < end) gaps.push_back({at, end});
  };
  for (const ColumnRange& touched : columns) {
    if (touched.end <= at) continue;
    if (touched.begin >= range.end) break;
    gap_until(touched.begin);
    at = touched.end;
  }
  gap_until(range.end);
  return gaps;
}

void GradNode::Touch(const ColumnRange& range) {
  if (started || range.empty()) return;
  ColumnRange merged = range;
  std::erase_if(columns, [&](const ColumnRange& c) {
    const bool meets = c.begin <= merged.end && merged.begin <= c.end;
    if (meets) merged = {std::min(c.begin, merged.begin), std::max(c.end, merged.end)};
    return meets;
  });
  const ColumnRange all = Range();
  if (merged.begin <= all.begin && all.end <= merged.end) {
    started = true;
    return;
  }
  const auto next = std::find_if(columns.begin(), columns.end(),
                                 [&](const ColumnRange& c) { return c.begin > merged.begin; });
  columns.insert(next, merged);
}

GradRef ViewOf(const GradRef& ref, int64_t begin, int64_t width) {
  if (ref == nullptr) return nullptr;
  auto view = std::make_shared<GradNode>();
  view->shape = ref->shape;
  view->shape.Set(-1, width);
  view->dtype = ref->dtype;
  view->whole = ref->whole != nullptr ? ref->whole : ref;
  view->begin = ref->begin + begin;
  return view;
}

}  // namespace tessera
