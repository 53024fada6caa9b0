#ifndef TESSERA_CONFIG_FIELDS_H_
#define TESSERA_CONFIG_FIELDS_H_

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"

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
inline Range UpTo(double high) {  // (0, high]
  return {.low = 0, .high = high, .open_low = true};
}
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
  // Of a field that some values of its siblings make dead (Added::OnlyWith): what it needs, and
  // whether it has it (no function: always), and what it is where nobody sets it.
  std::string needs, default_text;
  std::function<bool()> alive;
  bool Alive() const { return alive == nullptr || alive(); }
};

class FieldList {
 public:
  template <class E>
  using Names = std::vector<std::pair<const char*, E>>;

  // What was added last, to say more of it.
  class Added {
   public:
    explicit Added(Field* field) : field_(field) {}
    // The key is read only where `alive()`, and is a mistake to set elsewhere to anything but its
    // default: "beta_fast has no effect: it needs `type: yarn`". It is printed where it is alive.
    // `needs` completes "it needs".
    void OnlyWith(const char* needs, std::function<bool()> alive) {
      field_->needs = needs;
      field_->default_text = PrintYamlFlow(field_->print());
      field_->alive = std::move(alive);
    }

   private:
    Field* field_;
  };

  Added Add(const char* key, int64_t& v, Range range, const char* doc);
  Added Add(const char* key, uint64_t& v, const char* doc);
  Added Add(const char* key, double& v, Range range, const char* doc);
  // `none`, `null` or nothing after the colon: no value. Printed as `null`, which other readers of
  // YAML know.
  Added Add(const char* key, std::optional<int64_t>& v, Range range, const char* doc);
  Added Add(const char* key, std::optional<double>& v, Range range, const char* doc);
  // Where it is not given it follows from other keys: `in_force` tells, and is what is printed.
  Added Add(const char* key, std::optional<double>& v, Range range,
            std::function<double()> in_force, const char* doc);
  Added Add(const char* key, bool& v, const char* doc);
  Added Add(const char* key, std::optional<bool>& v, std::function<bool()> in_force,
            const char* doc);
  Added Add(const char* key, std::string& v, const char* doc);
  Added Add(const char* key, std::vector<double>& v, Range range, const char* doc);
  Added Add(const char* key, std::vector<int64_t>& v, Range range, const char* doc);
  Added Add(const char* key, std::vector<std::string>& v, const char* doc);

  template <class E>
  Added Add(const char* key, E& v, const Names<E>& names, const char* doc) {
    std::vector<std::string> choices;
    std::vector<E> values;
    for (const auto& [name, value] : names) {
      choices.push_back(name);
      values.push_back(value);
    }
    return Choice(
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
  Added Add(const char* key, S& v, const char* doc) {
    FieldList inner;
    v.Fields(inner);
    return Map(key, doc, std::move(inner.fields_));
  }
  // A struct that may be absent: `none`, or a map that starts from the defaults.
  template <class S>
  requires requires(S& s, FieldList& f) { s.Fields(f); }
  Added Add(const char* key, std::optional<S>& v, const char* doc) {
    FieldList defaults;
    S fresh;  // gives the manual page its rows; OptionalMap keeps nothing that refers to it
    fresh.Fields(defaults);
    return OptionalMap(
        key, doc, std::move(defaults.fields_), [&v] { v.reset(); },
        [&v](const std::function<void(FieldList&)>& use) {
          if (!v) v.emplace();
          FieldList inner;
          v->Fields(inner);
          use(inner);
        },
        [&v] { return v.has_value(); });
  }

  // What reads and prints itself, by rules that this room does not know: a list of layers, say.
  template <class V>
  requires requires(V& v, const ConfigNode& n, absl::string_view key, ErrorList* errors) {
    v.Read(n, key, errors);
    { v.Print() } -> std::same_as<ConfigNode>;
  }
  Added Add(const char* key, V& v, const char* doc) {
    return Push({.key = key,
                 .type = V::kType,
                 .doc = doc,
                 .read = [k = std::string(key), &v](const ConfigNode& n,
                                                    ErrorList* errors) { v.Read(n, k, errors); },
                 .print = [&v] { return v.Print(); }});
  }

  const std::vector<Field>& all() const { return fields_; }

 private:
  Added Push(Field field);  // a key may be added once
  Added Choice(const char* key, const char* doc, std::vector<std::string> choices,
               std::function<void(size_t)> set, std::function<size_t()> get);
  Added Map(const char* key, const char* doc, std::vector<Field> fields);
  Added OptionalMap(const char* key, const char* doc, std::vector<Field> fields,
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
// Adds an error for a key of the map that is set, to other than its default, though its siblings
// make it dead. Call it when the map has been read.
void AddDeadKeys(const ConfigNode& map, const std::vector<Field>& fields, ErrorList* errors);
// The error of a key that nobody knows. `elsewhere` is where there is such a key, or empty.
void AddUnknownKey(const ConfigNode::Entry& entry, absl::string_view in,
                   const std::vector<std::string>& known, const std::string& elsewhere,
                   ErrorList* errors);
// The path of a key of that name in the maps below, "data.text" for "text"; or of one very like it;
// or empty.
std::string PathBelow(const std::string& key, const std::vector<Field>& fields);
// The fields' present values as a map, without those that are dead.
ConfigNode PrintMap(const FieldList& fields);
ConfigNode PrintMap(const std::vector<Field>& fields);

// A key as the manual page, the completion and `--json` show it.
struct ManualRow {
  std::string key;  // with the maps it stands in: "rope.scaling.factor"
  std::string type, default_text, doc;
  std::vector<std::string> choices;
  std::string needs;  // of a key that is read only with others: "`type: yarn`"
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

#endif  // TESSERA_CONFIG_FIELDS_H_
