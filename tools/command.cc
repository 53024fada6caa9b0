#include "tools/command.h"

#include "absl/strings/numbers.h"

namespace tessera {

CLI::Validator WholeNumber(int64_t least, int64_t most) {
  return CLI::Validator(
      [=](const std::string& text) {
        // The library that takes the value afterwards reads 010 as 8 and saturates; only a text
        // that says its value in the one plain way passes.
        int64_t value = 0;
        if (absl::SimpleAtoi(text, &value) && std::to_string(value) == text && value >= least &&
            value <= most)
          return std::string();
        return "expected a whole number " +
               (most == INT64_MAX
                    ? ">= " + std::to_string(least)
                    : "in [" + std::to_string(least) + ", " + std::to_string(most) + "]") +
               ", got '" + text + "'";
      },
      "", "");
}

void AddIsa(CLI::App* command) {
  command
      ->add_option_function<std::string>(
          "--isa",
          [](const std::string& isa) {
            if (isa != "auto" && !SetIsa(isa == "avx512" ? Isa::kAvx512 : Isa::kAvx2))
              throw CLI::ValidationError("--isa", isa + " is not supported by this processor");
          },
          "auto, avx2 or avx512")
      ->check(CLI::IsMember({"auto", "avx2", "avx512"}));
}

void AddDevice(CLI::App* command, std::string* device) {
  command->add_option("--device", *device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
}

absl::StatusOr<Device> OpenDevice(const std::string& wanted, std::string* line) {
  *line = std::string("device cpu (") + Name(ActiveIsa()) + ")";
  if (wanted == "cpu") return Device::kCpu;
  const absl::Status cuda = OpenCuda();
  if (cuda.ok()) {
    *line = "device cuda (" + Cuda().Name() + ")";
    return Device::kCuda;
  }
  if (wanted == "cuda") return cuda;
  *line += absl::IsNotFound(cuda) ? "; this build has no CUDA kernels"
                                  : "; no GPU: " + std::string(cuda.message());
  return Device::kCpu;
}

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "tessera: %s\n", std::string(status.message()).c_str());
  return code;
}

int CodeOf(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument ? kMistake : kFailed;
}

}  // namespace tessera
