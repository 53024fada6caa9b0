#include "train/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/status.h"
#include "train/files.h"

namespace tessera {
namespace {

using Curve = std::vector<std::pair<double, double>>;  // step, value

constexpr double kWidth = 640, kHeight = 220, kLeft = 60, kBottom = 24;

// A line chart of some curves over the same steps.
std::string Chart(const std::string& title, const std::map<std::string, Curve>& curves) {
  double x1 = 1, y0 = INFINITY, y1 = -INFINITY;
  for (const auto& [name, curve] : curves)
    for (const auto& [x, y] : curve) {
      x1 = std::max(x1, x);
      y0 = std::min(y0, y);
      y1 = std::max(y1, y);
    }
  if (!(y0 <= y1)) return "";
  if (y0 == y1) y1 = y0 + 1;
  const auto at_x = [&](double x) { return kLeft + (kWidth - kLeft) * x / x1; };
  const auto at_y = [&](double y) { return (kHeight - kBottom) * (1 - (y - y0) / (y1 - y0)) + 4; };
  std::string svg = absl::StrFormat("<h2>%s</h2><svg viewBox='0 0 %g %g' width='%g'>", title,
                                    kWidth + 10, kHeight + 4, kWidth);
  for (int i = 0; i <= 4; ++i) {
    const double y = y0 + (y1 - y0) * i / 4;
    absl::StrAppendFormat(
        &svg,
        "<line x1='%g' x2='%g' y1='%g' y2='%g' stroke='#ddd'/><text x='%g' y='%g' "
        "text-anchor='end'>%.4g</text>",
        kLeft, kWidth, at_y(y), at_y(y), kLeft - 4, at_y(y) + 4, y);
  }
  const char* const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd"};
  size_t c = 0;
  for (const auto& [name, curve] : curves) {
    std::string points;
    for (const auto& [x, y] : curve) absl::StrAppendFormat(&points, "%.1f,%.1f ", at_x(x), at_y(y));
    const char* const colour = colours[c % 4];
    absl::StrAppendFormat(&svg,
                          "<polyline fill='none' stroke='%s' points='%s'/><text x='%g' y='%g' "
                          "fill='%s'>%s</text>",
                          colour, points, kWidth - 150, 16 + 14 * static_cast<double>(c), colour,
                          name);
    ++c;
  }
  absl::StrAppendFormat(&svg, "<text x='%g' y='%g' text-anchor='end'>step %g</text></svg>\n",
                        kWidth, kHeight, x1);
  return svg;
}

// Experts down, steps across; darker is more of the tokens.
std::string Heatmap(const std::string& title,
                    const std::vector<std::pair<int64_t, std::vector<double>>>& loads) {
  constexpr size_t kColumns = 120;
  if (loads.empty()) return "";
  const size_t E = loads[0].second.size(), columns = std::min(kColumns, loads.size());
  const double w = kWidth / static_cast<double>(columns),
               h = std::min(18.0, 200.0 / static_cast<double>(E));
  std::string svg = absl::StrFormat("<h2>%s</h2><svg viewBox='0 0 %g %g' width='%g'>", title,
                                    kWidth, h * static_cast<double>(E), kWidth);
  for (size_t c = 0; c < columns; ++c) {
    const auto& [step, load] = loads[c * loads.size() / columns];
    for (size_t e = 0; e < E && e < load.size(); ++e)
      absl::StrAppendFormat(&svg,
                            "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='#1f4e9c' "
                            "fill-opacity='%.3f'><title>step %d, expert %d: %.3f</title></rect>",
                            w * static_cast<double>(c), h * static_cast<double>(e), w, h,
                            std::clamp(load[e] * static_cast<double>(E) / 2, 0.0, 1.0), step, e,
                            load[e]);
  }
  return svg + "</svg>\n";
}

std::string CostTable(const ModelCost& cost) {
  std::string html =
      "<h2>Cost</h2><table><tr><th>layer<th>parameters<th>active<th>forward FLOPs a "
      "token<th>training FLOPs a token<th>state bytes<th>KV bytes a token</tr>\n";
  for (const LayerCost& l : cost.layers)
    absl::StrAppendFormat(&html, "<tr><td>%s<td>%d<td>%d<td>%.0f<td>%.0f<td>%d<td>%d</tr>\n",
                          l.path, l.parameters, l.active_parameters, l.forward_flops,
                          l.training_flops, l.state.fixed_bytes, l.state.bytes_per_token);
  absl::StrAppendFormat(&html, "<tr><th>total<th>%d<th>%d<th>%.0f<th>%.0f<th>%d<th>%d</tr></table>",
                        cost.parameters, cost.active_parameters, cost.forward_flops,
                        cost.training_flops, cost.state_bytes, cost.kv_bytes_per_token);
  return html;
}

}  // namespace

absl::Status WriteReport(const std::string& run, const ModelCost& cost) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadFile(run + "/metrics.jsonl"));
  Curve loss, validation, speed;
  std::map<std::string, std::vector<std::pair<int64_t, std::vector<double>>>> loads;
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    const nlohmann::json row = nlohmann::json::parse(text.substr(at, end - at), nullptr, false);
    if (!row.is_object() || !row.contains("step")) continue;
    const int64_t step = row["step"].get<int64_t>();
    const auto add = [&](const char* key, Curve* curve) {
      if (row.contains(key) && row[key].is_number())
        curve->emplace_back(static_cast<double>(step), row[key].get<double>());
    };
    add("loss", &loss);
    add("val_loss", &validation);
    add("tokens_per_second", &speed);
    for (const auto& [key, value] : row.items())
      if (value.is_array() && key.size() > 5 && key.substr(key.size() - 5) == ".load")
        loads[key].emplace_back(step, value.get<std::vector<double>>());
  }
  std::string html = absl::StrCat(
      "<!doctype html><meta charset='utf-8'><title>", run,
      "</title><style>body{font:14px sans-serif;margin:2em;max-width:60em}svg "
      "text{font:11px sans-serif}table{border-collapse:collapse}td,th{padding:2px "
      "8px;text-align:right;border-bottom:1px solid #ddd}</style><h1>",
      run, "</h1>\n", Chart("Loss, nats a token", {{"training", loss}, {"validation", validation}}),
      Chart("Tokens a second", {{"training", speed}}), CostTable(cost));
  for (const auto& [key, rows] : loads) html += Heatmap("Load of experts: " + key, rows);
  return AtomicWrite(run + "/report.html", html + "\n");
}

}  // namespace tessera
