#ifndef TESSERA_GENERATE_STOP_TEXT_H_
#define TESSERA_GENERATE_STOP_TEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

// Text on its way out, token by token, that ends where the first of some stop texts begins. These
// may be spread over tokens, so what could be the begin of one is held back until more is known.
class StopText {
 public:
  // None of `stops` is empty.
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The bytes that can be shown once `bytes` have come.
  std::string Take(absl::string_view bytes);
  // Those held back, at the end of a text that no stop text ended.
  std::string Rest() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tessera

#endif  // TESSERA_GENERATE_STOP_TEXT_H_
