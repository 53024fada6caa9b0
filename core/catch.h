#ifndef TESSERA_CORE_CATCH_H_
#define TESSERA_CORE_CATCH_H_

#include <new>
#include <system_error>
#include <utility>

#include "core/limits.h"
#include "core/sizes.h"
#include "core/status.h"

// The library's edge: what is thrown below it (memory that the system refuses, a GPU that fails)
// becomes a Status above it.

namespace tessera {

// f(), which returns a Status or a StatusOr.
template <class F>
auto CatchErrors(F&& f) -> decltype(f()) {
  try {
    return std::forward<F>(f)();
  } catch (const OutOfMemory& e) {
    return absl::ResourceExhaustedError(e.what());
  } catch (const SizeError& e) {
    return absl::InvalidArgumentError(e.what());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "out of memory: the system refused some; use a smaller model, batch or sequence");
  } catch (const std::system_error& e) {
    return absl::ResourceExhaustedError(e.what());
  } catch (const std::runtime_error& e) {  // CudaError, for one
    return absl::FailedPreconditionError(e.what());
  }
}

}  // namespace tessera

#endif  // TESSERA_CORE_CATCH_H_
