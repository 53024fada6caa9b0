#include "absl/strings/str_cat.h"
#include "tools/command.h"

namespace tessera {

extern const char kVersion[], kCommit[];  // written by tools/version.cmake at each build

std::string CommitText() { return *kCommit == 0 ? kVersion : kCommit; }

std::string VersionText() {
#ifdef __clang__
  constexpr char kCompiler[] = "Clang " __clang_version__;
#else
  constexpr char kCompiler[] = "GCC " __VERSION__;
#endif
  std::string sets;
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512})
    absl::StrAppend(&sets, sets.empty() ? "" : ", ", Name(isa),
                    Supported(isa) ? "" : " (not here)");
  const absl::Status cuda = OpenCuda();
  return absl::StrCat("tessera ", kVersion, *kCommit == 0 ? "" : absl::StrCat(" (", kCommit, ")"),
                      "\ncompiler: ", kCompiler, "\ninstruction sets: ", sets,
                      "; in use: ", Name(ActiveIsa()),
                      "\nCUDA: ", cuda.ok() ? Cuda().Name() : absl::StrCat("no; ", cuda.message()));
}

}  // namespace tessera
