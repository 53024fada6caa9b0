#ifndef TESSERA_TESTS_CONTRACT_REAL_H_
#define TESSERA_TESTS_CONTRACT_REAL_H_

#include <cmath>
#include <cstdint>
#include <vector>

// A double that remembers how it was made: references written once, as templates over their scalar,
// give their own exact gradient by running with it. Reverse mode over one tape a thread.

namespace tessera::testing {

class Real {
 public:
  Real() = default;
  Real(double v) : v_(v) {}  // NOLINT: a constant, by design
  static Real Variable(double v) { return Real(v, Push(-1, 0, -1, 0)); }
  static void Clear() { Tape().clear(); }
  double value() const { return v_; }
  int32_t id() const { return id_; }
  explicit operator double() const { return v_; }

  // d(sum of weight * output) / d(every variable), indexed by id.
  static std::vector<double> Gradients(const std::vector<Real>& outputs,
                                       const std::vector<double>& weights) {
    std::vector<double> g(Tape().size(), 0.0);
    for (size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].id_ >= 0) g[static_cast<size_t>(outputs[i].id_)] += weights[i];
    for (size_t i = Tape().size(); i-- > 0;) {
      const Node& n = Tape()[i];
      if (n.a >= 0) g[static_cast<size_t>(n.a)] += n.da * g[i];
      if (n.b >= 0) g[static_cast<size_t>(n.b)] += n.db * g[i];
    }
    return g;
  }

  friend Real operator+(Real x, Real y) { return Make(x.v_ + y.v_, x, 1, y, 1); }
  friend Real operator-(Real x, Real y) { return Make(x.v_ - y.v_, x, 1, y, -1); }
  friend Real operator*(Real x, Real y) { return Make(x.v_ * y.v_, x, y.v_, y, x.v_); }
  friend Real operator/(Real x, Real y) {
    return Make(x.v_ / y.v_, x, 1 / y.v_, y, -x.v_ / (y.v_ * y.v_));
  }
  friend Real operator-(Real x) { return Make(-x.v_, x, -1, 0.0, 0); }
  Real& operator+=(Real y) { return *this = *this + y; }
  Real& operator-=(Real y) { return *this = *this - y; }
  Real& operator*=(Real y) { return *this = *this * y; }
  Real& operator/=(Real y) { return *this = *this / y; }
  friend bool operator<(Real x, Real y) { return x.v_ < y.v_; }
  friend bool operator>(Real x, Real y) { return x.v_ > y.v_; }
  friend bool operator<=(Real x, Real y) { return x.v_ <= y.v_; }
  friend bool operator>=(Real x, Real y) { return x.v_ >= y.v_; }
  friend bool operator==(Real x, Real y) { return x.v_ == y.v_; }

  friend Real exp(Real x) { return Unary(std::exp(x.v_), x, std::exp(x.v_)); }
  friend Real log(Real x) { return Unary(std::log(x.v_), x, 1 / x.v_); }
  friend Real log1p(Real x) { return Unary(std::log1p(x.v_), x, 1 / (1 + x.v_)); }
  friend Real sqrt(Real x) { return Unary(std::sqrt(x.v_), x, 0.5 / std::sqrt(x.v_)); }
  friend Real tanh(Real x) {
    const double t = std::tanh(x.v_);
    return Unary(t, x, 1 - t * t);
  }
  friend Real erf(Real x) {
    return Unary(std::erf(x.v_), x, 1.1283791670955126 * std::exp(-x.v_ * x.v_));
  }
  friend Real sin(Real x) { return Unary(std::sin(x.v_), x, std::cos(x.v_)); }
  friend Real cos(Real x) { return Unary(std::cos(x.v_), x, -std::sin(x.v_)); }

 private:
  struct Node {
    int32_t a, b;
    double da, db;
  };
  Real(double v, int32_t id) : v_(v), id_(id) {}
  static std::vector<Node>& Tape() {
    thread_local std::vector<Node> tape;
    return tape;
  }
  static int32_t Push(int32_t a, double da, int32_t b, double db) {
    Tape().push_back({a, b, da, db});
    return static_cast<int32_t>(Tape().size() - 1);
  }
  static Real Make(double v, Real x, double dx, Real y, double dy) {
    return x.id_ < 0 && y.id_ < 0 ? Real(v) : Real(v, Push(x.id_, dx, y.id_, dy));
  }
  static Real Unary(double v, Real x, double dx) { return Make(v, x, dx, 0.0, 0); }

  double v_ = 0;
  int32_t id_ = -1;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONTRACT_REAL_H_
