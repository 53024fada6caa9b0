#include "config/fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/scalars.h"
#include "core/check.h"

namespace tessera {
namespace {

ConfigNode Scalar(std::string text, bool quoted = false) {
  return {.kind = ConfigNode::Kind::kScalar, .text = std::move(text), .quoted = quoted};
}

// Quoted where YAML's other readers would take the bare text for something else.
ConfigNode TextNode(const std::string& text) { return Scalar(text, !IsTextToAll(text)); }

void ReadFieldsOf(const ConfigNode& map, const std::vector<Field>& fields, absl::string_view in,
                  ErrorList* errors) {
  if (map.kind != ConfigNode::Kind::kMap) {
    map.MarkRead();
    errors->Add(Expected(map, in, "a map of keys"));
    return;
  }
  map.read = map.entries.empty();
  const size_t before = errors->size();
  std::vector<std::string> known;
  for (const Field& f : fields) known.push_back(f.key);
  for (const ConfigNode::Entry& e : map.entries) {
    const Field* field = nullptr;
    for (const Field& f : fields)
      if (f.key == e.key) field = &f;
    if (field == nullptr) {
      AddUnknownKey(e, in, known, PathBelow(e.key, fields), errors);
    } else {
      ReadField(e.value, *field, errors);
    }
  }
  if (errors->size() == before) AddDeadKeys(map, fields, errors);
}

// Reads a list item by item; the whole list or none of it.
template <class T, class ReadItem>
void ReadList(const ConfigNode& n, absl::string_view key, absl::string_view type, std::vector<T>* v,
              ErrorList* errors, ReadItem read) {
  n.read = n.items.empty();
  if (n.kind != ConfigNode::Kind::kList) {
    n.MarkRead();
    errors->Add(Expected(
        n, key, type,
        n.kind == ConfigNode::Kind::kScalar ? absl::StrCat("; write [", n.text, "]") : ""));
    return;
  }
  std::vector<T> parsed(n.items.size());
  bool ok = true;
  for (size_t i = 0; i < parsed.size(); ++i)
    ok = read(n.items[i], absl::StrCat(key, "[", i, "]"), &parsed[i]) && ok;
  if (ok) *v = std::move(parsed);
}

template <class T, class Print>
ConfigNode PrintList(const std::vector<T>& v, Print print) {
  ConfigNode list{.kind = ConfigNode::Kind::kList};
  for (const T& x : v) list.items.push_back(print(x));
  return list;
}

// Fields that print what they print now, whatever becomes of the struct that they stand for.
void Freeze(std::vector<Field>* fields) {
  for (Field& f : *fields) {
    f.read = nullptr;
    f.print = [value = f.print()] { return value; };
    f.alive = nullptr;
    Freeze(&f.nested);
  }
}

// The keys of nested maps, each with its path.
void AddPaths(const std::vector<Field>& fields, const std::string& path,
              std::vector<std::pair<std::string, std::string>>* all) {
  for (const Field& f : fields) {
    if (!path.empty()) all->emplace_back(f.key, path + f.key);
    AddPaths(f.nested, path + f.key + ".", all);
  }
}

void AddRows(const std::vector<Field>& fields, const std::string& path,
             std::vector<ManualRow>* rows) {
  for (const Field& f : fields) {
    const ConfigNode value = f.print();
    const bool shown_below = !f.nested.empty() && value.kind == ConfigNode::Kind::kMap;
    rows->push_back({.key = path + f.key,
                     .type = f.type,
                     .default_text = shown_below                             ? ""
                                     : value.kind == ConfigNode::Kind::kNull ? "none"
                                                                             : PrintYamlFlow(value),
                     .doc = f.doc,
                     .choices = f.choices,
                     .needs = f.needs});
    AddRows(f.nested, path + f.key + ".", rows);
  }
}

}  // namespace

FieldList::Added FieldList::Push(Field field) {
  for (const Field& f : fields_)
    TESSERA_CHECK(f.key != field.key, "key '%s' is added twice", f.key.c_str());
  fields_.push_back(std::move(field));
  return Added(&fields_.back());
}

FieldList::Added FieldList::Add(const char* key, int64_t& v, Range range, const char* doc) {
  return Push({.key = key,
               .type = "an integer" + range.ToString(),
               .doc = doc,
               .read = [k = std::string(key), range, &v](
                           const ConfigNode& n,
                           ErrorList* errors) { ReadInteger(n, k, range, "", &v, errors); },
               .print = [&v] { return Scalar(absl::StrCat(v)); }});
}

FieldList::Added FieldList::Add(const char* key, uint64_t& v, const char* doc) {
  return Push(
      {.key = key,
       .type = "an integer >= 0",
       .doc = doc,
       .read = [k = std::string(key), &v](const ConfigNode& n,
                                          ErrorList* errors) { ReadUnsigned(n, k, &v, errors); },
       .print = [&v] { return Scalar(absl::StrCat(v)); }});
}

FieldList::Added FieldList::Add(const char* key, double& v, Range range, const char* doc) {
  return Push({.key = key,
               .type = "a number" + range.ToString(),
               .doc = doc,
               .read = [k = std::string(key), range, &v](
                           const ConfigNode& n,
                           ErrorList* errors) { ReadNumber(n, k, range, "", &v, errors); },
               .print = [&v] { return Scalar(NumberText(v)); }});
}

FieldList::Added FieldList::Add(const char* key, std::optional<int64_t>& v, Range range,
                                const char* doc) {
  return Push({.key = key,
               .type = "an integer" + range.ToString() + " or none",
               .doc = doc,
               .read =
                   [k = std::string(key), range, &v](const ConfigNode& n, ErrorList* errors) {
                     int64_t parsed;
                     if (ReadInteger(n, k, range, " or none", &parsed, errors)) v = parsed;
                   },
               .print = [&v] { return v ? Scalar(absl::StrCat(*v)) : ConfigNode(); },
               .clear = [&v] { v.reset(); }});
}

FieldList::Added FieldList::Add(const char* key, std::optional<double>& v, Range range,
                                const char* doc) {
  return Push({.key = key,
               .type = "a number" + range.ToString() + " or none",
               .doc = doc,
               .read =
                   [k = std::string(key), range, &v](const ConfigNode& n, ErrorList* errors) {
                     double parsed;
                     if (ReadNumber(n, k, range, " or none", &parsed, errors)) v = parsed;
                   },
               .print = [&v] { return v ? Scalar(NumberText(*v)) : ConfigNode(); },
               .clear = [&v] { v.reset(); }});
}

FieldList::Added FieldList::Add(const char* key, std::optional<double>& v, Range range,
                                std::function<double()> in_force, const char* doc) {
  return Push(
      {.key = key,
       .type = "a number" + range.ToString(),
       .doc = doc,
       .read =
           [k = std::string(key), range, &v](const ConfigNode& n, ErrorList* errors) {
             double parsed;
             if (ReadNumber(n, k, range, "", &parsed, errors)) v = parsed;
           },
       .print = [in_force = std::move(in_force)] { return Scalar(NumberText(in_force())); }});
}

FieldList::Added FieldList::Add(const char* key, bool& v, const char* doc) {
  return Push({.key = key,
               .type = "true or false",
               .doc = doc,
               .read = [k = std::string(key), &v](
                           const ConfigNode& n, ErrorList* errors) { ReadTruth(n, k, &v, errors); },
               .print = [&v] { return Scalar(v ? "true" : "false"); },
               .choices = {"true", "false"}});
}

FieldList::Added FieldList::Add(const char* key, std::optional<bool>& v,
                                std::function<bool()> in_force, const char* doc) {
  return Push(
      {.key = key,
       .type = "true or false",
       .doc = doc,
       .read =
           [k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
             bool parsed;
             if (ReadTruth(n, k, &parsed, errors)) v = parsed;
           },
       .print = [in_force = std::move(in_force)] { return Scalar(in_force() ? "true" : "false"); },
       .choices = {"true", "false"}});
}

FieldList::Added FieldList::Add(const char* key, std::string& v, const char* doc) {
  return Push({.key = key,
               .type = "text",
               .doc = doc,
               .read = [k = std::string(key), &v](
                           const ConfigNode& n, ErrorList* errors) { ReadText(n, k, &v, errors); },
               .print = [&v] { return TextNode(v); }});
}

FieldList::Added FieldList::Add(const char* key, std::vector<double>& v, Range range,
                                const char* doc) {
  const std::string type = "a list of numbers" + range.ToString();
  return Push(
      {.key = key,
       .type = type,
       .doc = doc,
       .read =
           [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
             ReadList(n, k, type, &v, errors,
                      [&](const ConfigNode& item, const std::string& name, double* x) {
                        return ReadNumber(item, name, range, "", x, errors);
                      });
           },
       .print = [&v] { return PrintList(v, [](double x) { return Scalar(NumberText(x)); }); }});
}

FieldList::Added FieldList::Add(const char* key, std::vector<int64_t>& v, Range range,
                                const char* doc) {
  const std::string type = "a list of integers" + range.ToString();
  return Push(
      {.key = key,
       .type = type,
       .doc = doc,
       .read =
           [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
             ReadList(n, k, type, &v, errors,
                      [&](const ConfigNode& item, const std::string& name, int64_t* x) {
                        return ReadInteger(item, name, range, "", x, errors);
                      });
           },
       .print = [&v] { return PrintList(v, [](int64_t x) { return Scalar(absl::StrCat(x)); }); }});
}

FieldList::Added FieldList::Add(const char* key, std::vector<std::string>& v, const char* doc) {
  const std::string type = "a list of texts";
  return Push(
      {.key = key,
       .type = type,
       .doc = doc,
       .read =
           [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
             ReadList(n, k, type, &v, errors,
                      [&](const ConfigNode& item, const std::string& name, std::string* x) {
                        return ReadText(item, name, x, errors);
                      });
           },
       .print = [&v] { return PrintList(v, [](const std::string& x) { return TextNode(x); }); }});
}

FieldList::Added FieldList::Choice(const char* key, const char* doc,
                                   std::vector<std::string> choices,
                                   std::function<void(size_t)> set, std::function<size_t()> get) {
  const std::string type = absl::StrCat("one of ", absl::StrJoin(choices, ", "));
  return Push(
      {.key = key,
       .type = type,
       .doc = doc,
       .read =
           [=, k = std::string(key)](const ConfigNode& n, ErrorList* errors) {
             n.MarkRead();
             std::string near;
             if (n.kind == ConfigNode::Kind::kScalar) {
               for (size_t i = 0; i < choices.size(); ++i)
                 if (n.text == choices[i]) return set(i);
               near = Nearest(n.text, choices);
             }
             errors->Add(Expected(
                 n, k, type, near.empty() ? "" : absl::StrCat("; did you mean '", near, "'?")));
           },
       .print =
           [=, k = std::string(key)] {
             const size_t i = get();
             TESSERA_CHECK(i < choices.size(), "%s has a value without a name", k.c_str());
             return Scalar(choices[i]);
           },
       .choices = choices});
}

FieldList::Added FieldList::Map(const char* key, const char* doc, std::vector<Field> fields) {
  return Push(
      {.key = key,
       .type = "a map",
       .doc = doc,
       .read = [k = std::string(key), fields](
                   const ConfigNode& n, ErrorList* errors) { ReadFieldsOf(n, fields, k, errors); },
       .print = [fields] { return PrintMap(fields); },
       .nested = fields});
}

FieldList::Added FieldList::OptionalMap(
    const char* key, const char* doc, std::vector<Field> fields, std::function<void()> reset,
    std::function<void(const std::function<void(FieldList&)>&)> with,
    std::function<bool()> present) {
  Freeze(&fields);
  return Push({.key = key,
               .type = "a map or none",
               .doc = doc,
               .read =
                   [=, k = std::string(key)](const ConfigNode& n, ErrorList* errors) {
                     with([&](FieldList& inner) { ReadMap(n, inner, k, errors); });
                   },
               .print =
                   [=] {
                     ConfigNode out;
                     if (present()) with([&](FieldList& inner) { out = PrintMap(inner); });
                     return out;
                   },
               .nested = fields,
               .clear = reset});
}

void ReadField(const ConfigNode& value, const Field& field, ErrorList* errors) {
  if (field.clear && IsNone(value)) {
    value.MarkRead();
    field.clear();
  } else if (value.kind == ConfigNode::Kind::kNull) {
    value.MarkRead();
    errors->Add(Expected(value, field.key, field.type));
  } else {
    field.read(value, errors);
  }
}

void AddDeadKeys(const ConfigNode& map, const std::vector<Field>& fields, ErrorList* errors) {
  for (const ConfigNode::Entry& e : map.entries)
    for (const Field& f : fields)
      if (f.key == e.key && !f.Alive() && PrintYamlFlow(f.print()) != f.default_text)
        errors->Add(absl::InvalidArgumentError(absl::StrCat(e.key_where.ToString(), ": ", f.key,
                                                            " has no effect here: it needs ",
                                                            f.needs, "; take it away")));
}

std::string PathBelow(const std::string& key, const std::vector<Field>& fields) {
  std::vector<std::pair<std::string, std::string>> below;  // key, path
  AddPaths(fields, "", &below);
  std::vector<std::string> keys;
  for (const auto& [name, path] : below) {
    if (name == key) return path;
    keys.push_back(name);
  }
  const std::string near = Nearest(key, keys);
  for (const auto& [name, path] : below)
    if (!near.empty() && name == near) return path;
  return "";
}

void AddUnknownKey(const ConfigNode::Entry& entry, absl::string_view in,
                   const std::vector<std::string>& known, const std::string& elsewhere,
                   ErrorList* errors) {
  entry.value.MarkRead();
  const bool glued = entry.value.kind == ConfigNode::Kind::kNull &&
                     absl::string_view(entry.key).find(':') != absl::string_view::npos;
  errors->Add(absl::InvalidArgumentError(absl::StrCat(
      entry.key_where.ToString(), ": ", UnknownName("key", entry.key, in, known, elsewhere),
      glued ? "; write a space after the ':'" : "")));
}

void ReadMap(const ConfigNode& map, const FieldList& fields, absl::string_view in,
             ErrorList* errors) {
  if (map.kind == ConfigNode::Kind::kNull) return map.MarkRead();
  ReadFieldsOf(map, fields.all(), in, errors);
}

ConfigNode PrintMap(const std::vector<Field>& fields) {
  ConfigNode map{.kind = ConfigNode::Kind::kMap};
  for (const Field& f : fields)
    if (f.Alive()) map.entries.push_back({f.key, {}, f.print()});
  return map;
}

ConfigNode PrintMap(const FieldList& fields) { return PrintMap(fields.all()); }

std::vector<ManualRow> ManualRows(const FieldList& fields) {
  std::vector<ManualRow> rows;
  AddRows(fields.all(), "", &rows);
  return rows;
}

}  // namespace tessera
