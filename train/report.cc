#include "train/report.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/status.h"
#include "io/files.h"
#include "io/json.h"
#include "train/chart.h"

namespace tessera {
namespace {

std::string CostTable(const ModelCost& cost) {
  std::string html =
      "<h2>Cost</h2><table><tr><th>layer<th>parameters<th>active<th>forward FLOPs a "
      "token<th>training FLOPs a token<th>state bytes<th>KV bytes a token</tr>\n";
  for (const LayerCost& l : cost.layers)
    absl::StrAppendFormat(&html, "<tr><td>%s<td>%d<td>%d<td>%.0f<td>%.0f<td>%d<td>%d</tr>\n",
                          l.path, l.parameters, l.active_parameters, l.forward_flops,
                          l.training_flops, l.state_bytes, l.kv_bytes_per_token);
  absl::StrAppendFormat(&html, "<tr><th>total<th>%d<th>%d<th>%.0f<th>%.0f<th>%d<th>%d</tr></table>",
                        cost.parameters, cost.active_parameters, cost.forward_flops,
                        cost.training_flops, cost.state_bytes, cost.kv_bytes_per_token);
  return html;
}

}  // namespace

absl::Status WriteReport(const std::string& run, const ModelCost& cost) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadFile(run + "/metrics.jsonl"));
  Curve loss{"training", {}}, validation{"validation", {}}, speed{"tokens a second", {}},
      rate{"MFU", {}};
  std::map<std::string, std::vector<std::pair<int64_t, std::vector<double>>>> loads;
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    const nlohmann::json row = nlohmann::json::parse(text.substr(at, end - at), nullptr, false);
    if (!row.is_object()) continue;
    const absl::StatusOr<int64_t> step_read = GetInteger(row, "step", 0, INT64_MAX, run);
    if (!step_read.ok()) continue;  // a person's note, which stands for no step
    const int64_t step = *step_read;
    const auto add = [&](const char* key, Curve* curve) {
      if (row.contains(key) && row[key].is_number())
        curve->points.emplace_back(static_cast<double>(step), row[key].get<double>());
    };
    add("loss", &loss);
    add("val_loss", &validation);
    add("tokens_per_second", &speed);
    add("mfu", &rate);
    for (const auto& [key, value] : row.items())
      if (absl::EndsWith(key, ".load") && value.is_array() &&
          std::all_of(value.begin(), value.end(), [](const auto& v) { return v.is_number(); }))
        loads[key].emplace_back(step, value.get<std::vector<double>>());
  }
  std::string html = absl::StrCat(
      "<!doctype html><meta charset='utf-8'><title>", Escaped(run),
      "</title><style>body{font:14px "
      "sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:2px "
      "8px;text-align:right;border-bottom:1px solid #ddd}</style><h1>",
      Escaped(run), "</h1>\n",
      LineChart({.title = "Loss, nats a token", .x_label = "step"}, {loss, validation}),
      LineChart({.title = "Tokens a second", .x_label = "step"}, {speed}),
      LineChart({.title = "Model FLOPs utilisation", .x_label = "step"}, {rate}), CostTable(cost));
  for (const auto& [key, rows] : loads) html += "<p>" + Heatmap("Load of experts: " + key, rows);
  return AtomicWrite(run + "/report.html", html + "\n");
}

}  // namespace tessera
