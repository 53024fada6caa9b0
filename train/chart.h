#ifndef TESSERA_TRAIN_CHART_H_
#define TESSERA_TRAIN_CHART_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// Drawings as SVG text, which a browser shows and an HTML page can hold: no scripts, no fonts or
// files from elsewhere.

namespace tessera {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y; rising x
};

struct Axes {
  std::string title;
  std::string x_label;
  bool log_x = false, log_y = false;  // powers of two along x, of ten along y; values > 0
  bool points = false;                // mark each point
};

// Curves over the same x, with a grid and a legend. "" if there is no point at all.
std::string LineChart(const Axes& axes, const std::vector<Curve>& curves);

// Rows down, steps across; the value that every row would have if all were equal is half dark, and
// twice that, or more, is darkest. Each loads[i] is (step, one value a row).
std::string Heatmap(const std::string& title,
                    const std::vector<std::pair<int64_t, std::vector<double>>>& loads);

// Drawings below each other, as one file.
std::string StackSvg(const std::vector<std::string>& drawings);

// Text as it must stand in HTML and SVG.
std::string Escaped(const std::string& text);

}  // namespace tessera

#endif  // TESSERA_TRAIN_CHART_H_
