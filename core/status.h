#ifndef TESSERA_CORE_STATUS_H_
#define TESSERA_CORE_STATUS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Early return of a person's mistake: the status carries what, where, the value and the fix.
#define TESSERA_RETURN_IF_ERROR(expression)                                 \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

#define TESSERA_CONCAT_(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_(a, b)
#define TESSERA_ASSIGN_OR_RETURN(declaration, expression)                                         \
  auto TESSERA_CONCAT(result_, __LINE__) = (expression);                                          \
  if (!TESSERA_CONCAT(result_, __LINE__).ok()) return TESSERA_CONCAT(result_, __LINE__).status(); \
  declaration = *std::move(TESSERA_CONCAT(result_, __LINE__))

#endif  // TESSERA_CORE_STATUS_H_
