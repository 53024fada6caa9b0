#include <cublasLt.h>

#include <array>
#include <map>
#include <optional>

#include "kernels/cuda/rounded.h"
#include "kernels/device/cuda_device.h"

// Dense products by cuBLASLt, which sees matrices by columns: it computes C^T = B^T A^T, for which
// row-major C, A and B need not move.

namespace tessera::cuda {
namespace {

// What NVIDIA recommends for Hopper.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

void CheckLt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw CudaError(std::string(what) + " by cuBLASLt: " + cublasLtGetStatusString(status));
}

struct Library {
  cublasLtHandle_t handle;
  void* workspace;
};
const Library& TheLibrary() {
  static const Library library = [] {
    Library l;
    CheckLt(cublasLtCreate(&l.handle), "opening the library");
    Check(cudaMalloc(&l.workspace, kWorkspaceBytes), "a workspace for cuBLASLt");
    return l;
  }();
  return library;
}

cudaDataType_t TypeOf(DType t) { return t == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// A matrix by columns.
class Layout {
 public:
  Layout(DType type, int64_t rows, int64_t columns, int64_t stride) {
    CheckLt(cublasLtMatrixLayoutCreate(&layout_, TypeOf(type), static_cast<uint64_t>(rows),
                                       static_cast<uint64_t>(columns), stride),
            "a product");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  operator cublasLtMatrixLayout_t() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_;
};

// What is to be done with the matrices.
class Operation {
 public:
  Operation(bool transpose_first, bool transpose_second, const void* bias, DType bias_type) {
    CheckLt(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    const cublasOperation_t first = transpose_first ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = transpose_second ? CUBLAS_OP_T : CUBLAS_OP_N;
    Set(CUBLASLT_MATMUL_DESC_TRANSA, first);
    Set(CUBLASLT_MATMUL_DESC_TRANSB, second);
    if (bias == nullptr) return;
    Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(bias_type));
  }
  ~Operation() { cublasLtMatmulDescDestroy(operation_); }
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  operator cublasLtMatmulDesc_t() const { return operation_; }

 private:
  template <class T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    CheckLt(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof value),
            "a product");
  }
  cublasLtMatmulDesc_t operation_;
};

// The library's choice for a product, asked for once. Null if it has none.
const cublasLtMatmulAlgo_t* Choose(const MatmulArgs& m, const Stored& a, const Stored& b,
                                   const Operation& operation, const Layout& first,
                                   const Layout& second, const Layout& result) {
  struct Choice {
    cublasLtMatmulAlgo_t algorithm;
    bool found;
  };
  using Key = std::array<int64_t, 12>;
  static std::map<Key, Choice> choices;
  const Key key = {m.M,
                   m.N,
                   m.K,
                   static_cast<int64_t>(m.a.order),
                   static_cast<int64_t>(m.b.order),
                   static_cast<int64_t>(a.factor.dtype),
                   static_cast<int64_t>(m.c.dtype),
                   a.factor.stride,
                   b.factor.stride,
                   m.c.stride,
                   m.bias != nullptr,
                   m.c.mode == Grad::kAccumulate};
  const auto known = choices.find(key);
  if (known != choices.end()) return known->second.found ? &known->second.algorithm : nullptr;
  cublasLtMatmulPreference_t preference;
  CheckLt(cublasLtMatmulPreferenceCreate(&preference), "a product");
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &kWorkspaceBytes, sizeof kWorkspaceBytes);
  constexpr uint32_t kAlign = 16;
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    cublasLtMatmulPreferenceSetAttribute(preference, attribute, &kAlign, sizeof kAlign);
  cublasLtMatmulHeuristicResult_t best = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      TheLibrary().handle, operation, first, second, result, result, preference, 1, &best, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  const bool found = status == CUBLAS_STATUS_SUCCESS && count > 0;
  const Choice& choice = choices.emplace(key, Choice{best.algo, found}).first->second;
  return found ? &choice.algorithm : nullptr;
}

}  // namespace

void OpenLibrary() { TheLibrary(); }

bool LibraryProduct(const MatmulArgs& m) {
  const bool half = m.precision == Precision::kBF16;
  if (m.a.rows != nullptr || m.b.rows != nullptr || m.c.rows != nullptr || m.row_scale != nullptr ||
      m.K == 0)
    return false;
  Stored a = m.stored_a(), b = m.stored_b(), bias = m.rounded_bias();
  const Stored c = {{m.c.data, m.c.dtype, m.c.stride}, m.M, m.N};
  if (!c.Aligned16()) return false;
  std::optional<Scratch> scratch;  // until the product is asked for
  if (half) {
    const int64_t of_a = a.ScratchFloats(), of_b = b.ScratchFloats();
    scratch.emplace(m.CudaScratch());
    if (bias.rows > 0) MakeReady(&bias, scratch->floats() + of_a + of_b);
    MakeReady(&b, scratch->floats() + of_a);
    MakeReady(&a, scratch->floats());
  } else if (a.factor.dtype != DType::kF32 || b.factor.dtype != DType::kF32 || !a.Aligned16() ||
             !b.Aligned16() || bias.rows > 0) {
    return false;
  }
  // By columns a stored matrix is its transpose, and so is C.
  const Layout first(b.factor.dtype, b.columns, b.rows, b.factor.stride);
  const Layout second(a.factor.dtype, a.columns, a.rows, a.factor.stride);
  const Layout result(m.c.dtype, m.N, m.M, m.c.stride);
  const Operation operation(m.b.order != Order::kPlain, m.a.order != Order::kPlain,
                            bias.factor.data, bias.factor.dtype);
  const cublasLtMatmulAlgo_t* const algorithm = Choose(m, a, b, operation, first, second, result);
  if (algorithm == nullptr) return false;
  const float one = 1, before = m.c.mode == Grad::kAccumulate ? 1 : 0;
  CheckLt(cublasLtMatmul(TheLibrary().handle, operation, &one, b.factor.data, first, a.factor.data,
                         second, &before, m.c.data, result, m.c.data, result, algorithm,
                         TheLibrary().workspace, kWorkspaceBytes, Stream()),
          "a product");
  return true;
}

}  // namespace tessera::cuda
