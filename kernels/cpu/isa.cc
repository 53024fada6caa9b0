#include "kernels/cpu/isa.h"

#include <cstdlib>
#include <cstring>

#include "core/engine.h"

namespace tessera {
namespace {

struct Choice {
  Isa isa = Isa::kAvx2;
  const char* error = nullptr;
};

Choice Choose() {
  if (!Supported(Isa::kAvx2))
    return {Isa::kAvx2,
            "this processor has no AVX2 and FMA (x86-64-v3), which Tessera's kernels need"};
  const char* wanted = std::getenv("TESSERA_ISA");
  if (wanted == nullptr || *wanted == 0 || std::strcmp(wanted, "auto") == 0)
    return {Supported(Isa::kAvx512) ? Isa::kAvx512 : Isa::kAvx2};
  if (std::strcmp(wanted, "avx2") == 0) return {Isa::kAvx2};
  if (std::strcmp(wanted, "avx512") != 0)
    return {Isa::kAvx2, "TESSERA_ISA in the environment is none of auto, avx2, avx512"};
  if (!Supported(Isa::kAvx512))
    return {Isa::kAvx2, "TESSERA_ISA=avx512, but this processor lacks AVX-512 with bf16"};
  return {Isa::kAvx512};
}

const Choice& Initial() {
  static const Choice choice = Choose();
  return choice;
}

}  // namespace

bool Supported(Isa isa) {
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  if (isa == Isa::kAvx2) return v3;
  return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}

bool SetIsa(Isa isa) {
  if (!Supported(isa)) return false;
  Engine::Current().isa.store(static_cast<int>(isa), std::memory_order_relaxed);
  return true;
}

Isa ActiveIsa() {
  const int chosen = Engine::Current().isa.load(std::memory_order_relaxed);
  return chosen < 0 ? Initial().isa : static_cast<Isa>(chosen);
}
const char* CpuError() { return Initial().error; }

}  // namespace tessera
