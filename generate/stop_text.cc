#include "generate/stop_text.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace tessera {

std::string StopText::Take(absl::string_view bytes) {
  if (stopped_) return "";
  held_.append(bytes.data(), bytes.size());
  size_t show = held_.size();
  for (const std::string& stop : stops_)
    if (const size_t at = held_.find(stop); at != held_.npos) {
      show = std::min(show, at);
      stopped_ = true;
    }
  if (stopped_) {
    held_.resize(show);
    return std::exchange(held_, {});
  }
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > held_.size() - show; --n)
      if (absl::EndsWith(held_, absl::string_view(stop).substr(0, n))) show = held_.size() - n;
  std::string shown = held_.substr(0, show);
  held_.erase(0, show);
  return shown;
}

}  // namespace tessera
