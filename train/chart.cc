#include "train/chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tessera {
namespace {

constexpr double kWidth = 760, kHeight = 270;
constexpr double kLeft = 64, kRight = 590, kTop = 30, kBottom = 226;  // of the plot in the picture
constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd",
                                    "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"};
constexpr const char* kStyle = "font-family='sans-serif' font-size='11'";

// One axis: values to a line of the picture.
struct Scale {
  bool log;
  double low, high, from, to;
  double At(double v) const {
    const double part = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + (to - from) * part;
  }
};

Scale MakeScale(bool log, double low, double high, double from, double to) {
  if (!(high > low)) {
    const double around = log ? 2.0 : std::max(1e-9, std::abs(high) * 0.1);
    low = log ? low / around : low - around;
    high = log ? high * around : high + around;
  }
  return {log, low, high, from, to};
}

// Where the grid's lines stand: round numbers, or powers of `base` (of ten: with 2 and 5 between,
// or with all digits where less than a decade is shown).
std::vector<double> Ticks(const Scale& s, double base) {
  std::vector<double> ticks;
  if (s.log) {
    std::vector<double> digits = {1};
    if (base == 10 && s.high < 8 * s.low) digits = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    if (base == 10 && s.high >= 8 * s.low) digits = {1, 2, 5};
    for (double v = std::pow(base, std::floor(std::log(s.low) / std::log(base) + 1e-9));
         v <= s.high * (1 + 1e-9); v *= base)
      for (const double digit : digits)
        if (v * digit >= s.low * (1 - 1e-9) && v * digit <= s.high * (1 + 1e-9))
          ticks.push_back(v * digit);
    return ticks;
  }
  const double rough = (s.high - s.low) / 5, power = std::pow(10, std::floor(std::log10(rough)));
  const double step = (rough / power < 2 ? 2 : rough / power < 5 ? 5 : 10) * power;
  for (double v = std::ceil(s.low / step) * step; v <= s.high + step * 1e-9; v += step)
    ticks.push_back(std::abs(v) < step * 1e-9 ? 0 : v);
  return ticks;
}

std::string Open(const std::string& title, double height) {
  return absl::StrFormat(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' width='%g' height='%g' "
      "%s><text x='4' y='16' font-size='14' font-weight='bold'>%s</text>\n",
      kWidth, height, kWidth, height, kStyle, Escaped(title));
}

}  // namespace

std::string LineChart(const Axes& axes, const std::vector<Curve>& curves) {
  double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
  for (const Curve& curve : curves)
    for (const auto& [x, y] : curve.points) {
      x0 = std::min(x0, x);
      x1 = std::max(x1, x);
      y0 = std::min(y0, y);
      y1 = std::max(y1, y);
    }
  if (!(y0 <= y1)) return "";
  const Scale across = MakeScale(axes.log_x, x0, x1, kLeft, kRight);
  const Scale up = MakeScale(axes.log_y, y0, y1, kBottom, kTop);
  std::string svg = Open(axes.title, kHeight);
  for (const double y : Ticks(up, 10))
    absl::StrAppendFormat(&svg,
                          "<line x1='%g' x2='%g' y1='%.1f' y2='%.1f' stroke='#ddd'/><text x='%g' "
                          "y='%.1f' text-anchor='end'>%g</text>\n",
                          kLeft, kRight, up.At(y), up.At(y), kLeft - 4, up.At(y) + 4, y);
  for (const double x : Ticks(across, 2))
    absl::StrAppendFormat(&svg,
                          "<line x1='%.1f' x2='%.1f' y1='%g' y2='%g' stroke='#eee'/><text "
                          "x='%.1f' y='%g' text-anchor='middle'>%g</text>\n",
                          across.At(x), across.At(x), kTop, kBottom, across.At(x), kBottom + 14, x);
  absl::StrAppendFormat(&svg, "<text x='%g' y='%g' text-anchor='middle'>%s</text>\n",
                        (kLeft + kRight) / 2, kBottom + 30, Escaped(axes.x_label));
  for (size_t c = 0; c < curves.size(); ++c) {
    const char* const colour = kColours[c % std::size(kColours)];
    std::string line;
    for (const auto& [x, y] : curves[c].points) {
      absl::StrAppendFormat(&line, "%.1f,%.1f ", across.At(x), up.At(y));
      if (axes.points)
        absl::StrAppendFormat(
            &svg,
            "<circle cx='%.1f' cy='%.1f' r='3' fill='%s'><title>%s: %g, %g</title></circle>\n",
            across.At(x), up.At(y), colour, Escaped(curves[c].name), x, y);
    }
    absl::StrAppendFormat(&svg,
                          "<polyline fill='none' stroke='%s' stroke-width='1.5' points='%s'/><text "
                          "x='%g' y='%g' fill='%s'>%s</text>\n",
                          colour, line, kRight + 10, kTop + 10 + 16 * static_cast<double>(c),
                          colour, Escaped(curves[c].name));
  }
  return svg + "</svg>\n";
}

std::string Heatmap(const std::string& title,
                    const std::vector<std::pair<int64_t, std::vector<double>>>& loads) {
  constexpr size_t kColumns = 120;
  if (loads.empty()) return "";
  const size_t E = loads[0].second.size(), columns = std::min(kColumns, loads.size());
  const double w = (kRight - kLeft) / static_cast<double>(columns),
               h = std::min(18.0, 200.0 / static_cast<double>(E));
  const double bottom = kTop + h * static_cast<double>(E);
  std::string svg = Open(title, bottom + 34);
  for (size_t e = 0; e < E; e += std::max<size_t>(1, E / 16))
    absl::StrAppendFormat(&svg, "<text x='%g' y='%.1f' text-anchor='end'>expert %d</text>\n",
                          kLeft - 4, kTop + h * (static_cast<double>(e) + 0.5) + 4, e);
  for (size_t c = 0; c < columns; ++c) {
    const auto& [step, load] = loads[c * loads.size() / columns];
    for (size_t e = 0; e < E && e < load.size(); ++e)
      absl::StrAppendFormat(&svg,
                            "<rect x='%.1f' y='%.1f' width='%.2f' height='%.1f' fill='#1f4e9c' "
                            "fill-opacity='%.3f'><title>step %d, expert %d: %.3f</title></rect>",
                            kLeft + w * static_cast<double>(c), kTop + h * static_cast<double>(e),
                            w + 0.2, h, std::clamp(load[e] * static_cast<double>(E) / 2, 0.0, 1.0),
                            step, e, load[e]);
  }
  absl::StrAppendFormat(&svg,
                        "\n<text x='%g' y='%g'>step %d</text><text x='%g' y='%g' "
                        "text-anchor='end'>step %d</text>\n",
                        kLeft, bottom + 16, loads.front().first, kRight, bottom + 16,
                        loads.back().first);
  absl::StrAppendFormat(&svg, "<text x='%g' y='%g'>half dark: an equal share (%.3g)</text></svg>\n",
                        kRight + 10, kTop + 10, 1 / static_cast<double>(E));
  return svg;
}

std::string StackSvg(const std::vector<std::string>& drawings) {
  std::string inner;
  double y = 0;
  for (const std::string& d : drawings) {
    if (d.empty()) continue;
    inner += absl::StrFormat("<g transform='translate(0 %g)'>\n", y) + d + "</g>\n";
    y += kHeight + 10;
  }
  return absl::StrFormat(
             "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' width='%g' "
             "height='%g'><rect width='100%%' height='100%%' fill='white'/>\n",
             kWidth, y, kWidth, y) +
         inner + "</svg>\n";
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace tessera
