#ifndef TESSERA_KERNELS_CPU_ISA_H_
#define TESSERA_KERNELS_CPU_ISA_H_

#include <cstdint>

// The instruction sets that the CPU kernels are built for. Every file kernels/*.cc is compiled once
// for each, with TESSERA_ISA naming the namespace that its code goes into, so that no inline
// function of one build is linked into the other. Results are the same bits on every machine and
// thread count within one instruction set, not across them.

namespace tessera {

enum class Isa : uint8_t {
  kAvx2,    // x86-64-v3: AVX2 and FMA; bf16 is widened to fp32
  kAvx512,  // x86-64-v4 with AVX512_BF16: products of bf16 by vdpbf16ps
};
constexpr const char* Name(Isa isa) { return isa == Isa::kAvx2 ? "avx2" : "avx512"; }

bool Supported(Isa isa);  // by this processor
bool SetIsa(Isa isa);     // of the calling thread's engine (core/engine.h); false, and nothing
                          // changed, where it is not supported
// Of the calling thread's engine: the best supported one, unless SetIsa or TESSERA_ISA in the
// environment chose.
Isa ActiveIsa();
const char*
CpuError();  // null, or why this program cannot run here (no AVX2, an unknown TESSERA_ISA)

// Runs the kernel of `Args`; each kernels/x.cc specialises it for the arguments that it serves.
namespace avx2 {
template <class Args>
void Run(const Args& args);
}
namespace avx512 {
template <class Args>
void Run(const Args& args);
}

}  // namespace tessera

// In kernels/x.cc: TESSERA_KERNEL(RmsNorm) serves RmsNormArgs<float> and RmsNormArgs<bf16> with
// RmsNorm(args).
#define TESSERA_KERNEL_OF(Args, Function) \
  template <>                             \
  void Run(const Args& args) {            \
    Function(args);                       \
  }
#define TESSERA_KERNEL(Op)               \
  TESSERA_KERNEL_OF(Op##Args<float>, Op) \
  TESSERA_KERNEL_OF(Op##Args<bf16>, Op)

// And with XGrad(args) Gradient<XArgs<float>> and Gradient<XArgs<bf16>> (kernels/view.h).
#define TESSERA_KERNEL_WITH_GRAD(Op)                     \
  TESSERA_KERNEL(Op)                                     \
  TESSERA_KERNEL_OF(Gradient<Op##Args<float>>, Op##Grad) \
  TESSERA_KERNEL_OF(Gradient<Op##Args<bf16>>, Op##Grad)

#endif  // TESSERA_KERNELS_CPU_ISA_H_
