#include "config/config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera {

std::string Location::ToString() const {
  return line == 0 ? file : absl::StrCat(file, ":", line, ":", column);
}

const ConfigNode* ConfigNode::Find(absl::string_view key) const {
  for (const Entry& e : entries)
    if (e.key == key) return &e.value;
  return nullptr;
}

absl::Status ConfigNode::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(where.ToString(), ": ", message));
}

const char* ConfigNode::KindName() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return "a single value";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
  }
  return "";
}

void ConfigNode::MarkRead() const {
  read = true;
  for (const ConfigNode& item : items) item.MarkRead();
  for (const Entry& e : entries) e.value.MarkRead();
}

void ReportUnread(const ConfigNode& root, ErrorList* errors) {
  if (root.read) return;
  if (root.items.empty() && root.entries.empty()) {
    const bool scalar = root.kind == ConfigNode::Kind::kScalar;
    errors->Add(root.Error(
        absl::StrCat(scalar ? absl::StrCat("'", root.text, "'") : std::string(root.KindName()),
                     " has no effect here: nothing reads it; take it away")));
  }
  for (const ConfigNode& item : root.items) ReportUnread(item, errors);
  for (const ConfigNode::Entry& e : root.entries) ReportUnread(e.value, errors);
}

std::string Nearest(absl::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t limit = std::min(std::max<size_t>(2, name.size() / 3) + 1, name.size());
  for (const std::string& c : candidates) {
    std::vector<size_t> row(c.size() + 1);
    for (size_t j = 0; j <= c.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= c.size(); ++j) {
        const size_t substitute = diagonal + (name[i - 1] == c[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
      }
    }
    if (row.back() < limit) {
      limit = row.back();
      best = c;
    }
  }
  return best;
}

std::string UnknownName(absl::string_view what, absl::string_view name, absl::string_view in,
                        const std::vector<std::string>& known, const std::string& elsewhere) {
  std::string near = Nearest(name, known);
  if (near.empty()) near = elsewhere;
  return absl::StrCat("unknown ", what, " '", name, "' in ", in,
                      near.empty() ? "" : absl::StrCat("; did you mean '", near, "'?"),
                      " (known: ", absl::StrJoin(known, ", "), ")");
}

void ErrorList::Add(const absl::Status& status) {
  if (!status.ok()) lines_.push_back(std::string(status.message()));
}

void ErrorList::Add(const ErrorList& others) {
  lines_.insert(lines_.end(), others.lines_.begin(), others.lines_.end());
}

absl::Status ErrorList::ToStatus() const {
  constexpr size_t kShown = 20;
  if (lines_.empty()) return absl::OkStatus();
  if (lines_.size() <= kShown) return absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
  return absl::InvalidArgumentError(
      absl::StrCat(absl::StrJoin(lines_.begin(), lines_.begin() + kShown, "\n"), "\nand ",
                   lines_.size() - kShown, " more"));
}

}  // namespace tessera
