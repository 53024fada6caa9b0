#ifndef TESSERA_ARCH_FIELDS_H_
#define TESSERA_ARCH_FIELDS_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arch/config.h"

// A config struct writes its keys once, in Fields(FieldList&); the parser, the range check, the
// printed config, the manual page and the shell completion all walk that list.
//
//   struct GlaConfig {
//     int64_t heads = 4;
//     void Fields(FieldList& f) { f.Add("heads", heads, AtLeast(1), "heads; divides the key and the
//     value width"); }
//   };

namespace tessera {

// The numbers a field may take.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;     // low itself is not allowed
  bool open_high = false;    // high itself is not allowed
  std::vector<double> only;  // if any: one of these
  bool Holds(double v) const;
  std::string ToString() const;  // " >= 1", " in [0, 1)", ", one of 16, 32", ""
};
inline Range AtLeast(double low) { return {.low = low}; }
inline Range Between(double low, double high) { return {.low = low, .high = high}; }
inline Range FromBelow(double low, double high) {  // [low, high)
  return {.low = low, .high = high, .open_high = true};
}
inline Range Positive() { return {.low = 0, .open_low = true}; }
inline Range OneOf(std::vector<double> values) { return {.only = std::move(values)}; }
inline Range AnyNumber() { return {}; }

// One key: what it is, and how it is read and printed.
struct Field {
  std::string key, type, doc;  // type: "an integer >= 1", "one of rms, layer", "a map or none"
  std::function<void(const ConfigNode&, ErrorList*)> read;
  std::function<ConfigNode()> print;
  std::vector<Field> nested;         // of a map
  std::vector<std::string> choices;  // of an enum or a truth value
  std::function<void()> clear;       // of a field that may be none
};

class FieldList {
 public:
  template <class E>
  using Names = std::initializer_list<std::pair<const char*, E>>;

  void Add(const char* key, int64_t& v, Range range, const char* doc);
  void Add(const char* key, uint64_t& v, const char* doc);
  void Add(const char* key, double& v, Range range, const char* doc);
  // `none`, `null` or nothing after the colon: no value. Printed as `none`.
  void Add(const char* key, std::optional<int64_t>& v, Range range, const char* doc);
  void Add(const char* key, std::optional<double>& v, Range range, const char* doc);
  void Add(const char* key, bool& v, const char* doc);
  // Where it is not given it follows from other keys: `in_force` tells, and is what is printed.
  void Add(const char* key, std::optional<bool>& v, std::function<bool()> in_force,
           const char* doc);
  void Add(const char* key, std::string& v, const char* doc);
  void Add(const char* key, std::vector<double>& v, Range range, const char* doc);
  void Add(const char* key, std::vector<int64_t>& v, Range range, const char* doc);
  void Add(const char* key, std::vector<std::string>& v, const char* doc);

  template <class E>
  void Add(const char* key, E& v, Names<E> names, const char* doc) {
    std::vector<std::string> choices;
    std::vector<E> values;
    for (const auto& [name, value] : names) {
      choices.push_back(name);
      values.push_back(value);
    }
    Choice(
        key, doc, choices, [&v, values](size_t i) { v = values[i]; },
        [&v, values] {
          size_t i = 0;
          while (i < values.size() && !(values[i] == v)) ++i;
          return i;
        });
  }

  // A struct with its own Fields: a map.
  template <class S>
  requires requires(S& s, FieldList& f) { s.Fields(f); }
  void Add(const char* key, S& v, const char* doc) {
    FieldList inner;
    v.Fields(inner);
    Map(key, doc, std::move(inner.fields_));
  }
  // A struct that may be absent: `none`, or a map that starts from the defaults.
  template <class S>
  requires requires(S& s, FieldList& f) { s.Fields(f); }
  void Add(const char* key, std::optional<S>& v, const char* doc) {
    FieldList defaults;
    S fresh;  // gives the manual page its rows; OptionalMap keeps nothing that refers to it
    fresh.Fields(defaults);
    OptionalMap(
        key, doc, std::move(defaults.fields_), [&v] { v.reset(); },
        [&v](const std::function<void(FieldList&)>& use) {
          if (!v) v.emplace();
          FieldList inner;
          v->Fields(inner);
          use(inner);
        },
        [&v] { return v.has_value(); });
  }

  const std::vector<Field>& all() const { return fields_; }

 private:
  void Push(Field field);  // a key may be added once
  void Choice(const char* key, const char* doc, std::vector<std::string> choices,
              std::function<void(size_t)> set, std::function<size_t()> get);
  void Map(const char* key, const char* doc, std::vector<Field> fields);
  void OptionalMap(const char* key, const char* doc, std::vector<Field> fields,
                   std::function<void()> reset,
                   std::function<void(const std::function<void(FieldList&)>&)> with,
                   std::function<bool()> present);

  std::vector<Field> fields_;
};

// Reads a map into the fields. `in` names the map in errors: "attention", "train". A null node
// leaves the defaults.
void ReadMap(const ConfigNode& map, const FieldList& fields, absl::string_view in,
             ErrorList* errors);
// Reads the value of one field.
void ReadField(const ConfigNode& value, const Field& field, ErrorList* errors);
// The error of a key that nobody knows.
void AddUnknownKey(const ConfigNode::Entry& entry, absl::string_view in,
                   const std::vector<std::string>& known, ErrorList* errors);
// The fields' present values as a map.
ConfigNode PrintMap(const FieldList& fields);
ConfigNode PrintMap(const std::vector<Field>& fields);

// A key as the manual page, the completion and `--json` show it.
struct ManualRow {
  std::string key;  // with the maps it stands in: "rope.scaling.factor"
  std::string type, default_text, doc;
  std::vector<std::string> choices;
};
// One row a key, those of nested maps after their map. The defaults are the present values.
std::vector<ManualRow> ManualRows(const FieldList& fields);

// The same from and to text, for anything with Fields(FieldList&).
template <class S>
absl::Status ReadFields(const std::string& yaml, S& s) {
  FieldList fields;
  s.Fields(fields);
  absl::StatusOr<ConfigNode> node = ParseYaml(yaml, "text");
  if (!node.ok()) return node.status();
  ErrorList errors;
  ReadMap(*node, fields, "text", &errors);
  return errors.ToStatus();
}
template <class S>
std::string PrintFields(S& s) {
  FieldList fields;
  s.Fields(fields);
  return PrintYaml(PrintMap(fields));
}

}  // namespace tessera

#endif  // TESSERA_ARCH_FIELDS_H_
